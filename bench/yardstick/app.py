"""The web service: settings, dependencies and the one operation. `uvicorn bench.yardstick.app:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated
from uuid import UUID

import jwt
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from bench.yardstick import payments
from bench.yardstick.schemas import PaymentIn, PaymentOut
from payorder.adapters.processors import sandbox


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="YARDSTICK_")

    database_url: str
    database_pool_size: int
    issuer: str
    audience: str
    jwks: Path
    latency_seconds: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings = Settings()
    engine = create_async_engine(settings.database_url, pool_size=settings.database_pool_size, max_overflow=0)
    app.state.settings = settings
    app.state.keys = jwt.PyJWKSet.from_json(settings.jwks.read_text())
    app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
    app.state.processor = sandbox.from_options({"latency_seconds": settings.latency_seconds})
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def new_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.sessions() as session:
        yield session


async def owner_of(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]
) -> str:
    """The subject of the token, if it may write orders."""
    state, token = request.app.state, credentials.credentials
    try:
        claims = jwt.decode(
            token,
            state.keys[jwt.get_unverified_header(token)["kid"]],
            algorithms=["ES256"],
            audience=state.settings.audience,
            issuer=state.settings.issuer,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
    except (jwt.PyJWTError, KeyError):
        raise HTTPException(401, "not authenticated") from None
    if "write:orders" not in claims.get("scope", "").split():
        raise HTTPException(403, "not allowed")
    return str(claims["sub"])


@app.post("/orders/{order_id}/payment", status_code=201, response_model=PaymentOut)
async def pay_order(
    order_id: UUID,
    body: PaymentIn,
    request: Request,
    owner: Annotated[str, Depends(owner_of)],
    session: Annotated[AsyncSession, Depends(new_session)],
) -> Response:
    payment = await payments.pay(session, request.app.state.processor, str(order_id), owner, body)
    headers = {"location": f"/payments/{payment.id}"}
    return Response(payment.reply, status_code=201, headers=headers, media_type="application/json")
