"""The store on SQLAlchemy: SQLite and PostgreSQL, the same statements on both."""
