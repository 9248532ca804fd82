"""What is sent and answered. Cards alone: bank accounts would only add to its work."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel
from pydantic_extra_types.payment import PaymentCardNumber

Country = Annotated[str, Field(pattern="^[A-Za-z]{2}$")]
Line = Annotated[str, Field(max_length=200)]


class Schema(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, extra="forbid", hide_input_in_errors=True
    )


class CardIn(Schema):
    object: Literal["card"]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    number: PaymentCardNumber
    cvc: SecretStr | None = None
    exp_month: Annotated[int, Field(ge=1, le=12)]
    exp_year: Annotated[int, Field(ge=2024, le=9999)]
    address_line1: Line | None = None
    address_line2: Line | None = None
    address_city: Line | None = None
    address_country: Country | None = None
    address_post_code: Annotated[str, Field(max_length=20)] | None = None


class PaymentIn(Schema):
    amount: Annotated[Decimal, Field(gt=0, max_digits=16, decimal_places=4)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    source: CardIn


class CardOut(Schema):
    object: Literal["card"] = "card"
    name: str
    number: str
    exp_month: int
    exp_year: int
    address_country: str | None
    address_post_code: str | None


class PaymentOut(Schema):
    id: str
    amount: Decimal
    currency: str
    source: CardOut
    status: str
    created_at: datetime
