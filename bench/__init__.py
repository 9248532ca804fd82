"""What a PayOrder costs, beside the least it could cost and beside the usual way to write it, all in one run.

floor/       grpc.aio and asyncpg, two statements, and nothing else: no authentication, no checks, no log
yardstick/   the same operation as a web service is usually written: FastAPI, pydantic, SQLAlchemy's ORM, uvicorn
load/        the process that calls them
sections/    the measurements, one file each; __main__.py runs them, table.py and plots.py show what came out

Read in this order: sizes.py, measure.py, sections/pay.py, goals.py.
"""
