"""What `./dev up` prints when it is ready: commands to paste."""

from pathlib import Path
from string import Template

DATA_DEFAULT = Path(".payorder")
ISSUER_PORT = 8082

_WELCOME = Template("""\
ready http://$address

Paste into another terminal, in this folder.

  A token for alice:
    TOKEN=$$(./dev token --sub alice --scope "read:orders write:orders"$data_option | tail -n 1)

  A token for ada, by her password:
    curl -s $issuer_url/auth/tokens -H 'Content-Type: application/json' \\
      -d '{"username": "ada", "password": "development"}'

  A token by OAuth 2.0, in a browser:
    open $issuer_url and follow the link

  Create an order and keep its id:
    ORDER=$$(curl -s http://$address/orders -H "Authorization: Bearer $$TOKEN" -H 'Content-Type: application/json' \\
      -d '{"totalAmount": "49.99", "currency": "GBP"}' | tee /dev/stderr | sed 's/.*"id":"\\([^"]*\\)".*/\\1/')

  Pay it (REST):
    curl -i http://$address/orders/$$ORDER/payment -H "Authorization: Bearer $$TOKEN" \\
      -H 'Content-Type: application/json' -d '{
      "amount": "49.99", "currency": "GBP",
      "source": {"object": "card", "name": "J. Doe", "number": "4242424242424242", "cvc": "123",
                 "expMonth": 12, "expYear": 2025, "addressLine1": "123 Fake Street", "addressLine2": "4th Floor",
                 "addressCity": "London", "addressCountry": "gb", "addressPostCode": "N12 9XX"}}'

  Create another and pay it (gRPC, by reflection; $grpc_address is the service itself, $address goes through Envoy):
    .venv/bin/buf curl --protocol grpc --http2-prior-knowledge -H "Authorization: Bearer $$TOKEN" \\
      -d '{"totalAmount": "49.99", "currency": "GBP"}' http://$address/payments.v1.OrderService/CreateOrder
    .venv/bin/buf curl --protocol grpc --http2-prior-knowledge -H "Authorization: Bearer $$TOKEN" \\
      -d '{"orderId": "<its id>", "payment": {"amount": "49.99", "currency": "GBP", "source": {"object": "card",
           "name": "J. Doe", "number": "4242424242424242", "cvc": "123", "expMonth": 12, "expYear": 2025}}}' \\
      http://$grpc_address/payments.v1.PaymentService/PayOrder

  The same with grpcurl:
    grpcurl -plaintext $address list
    grpcurl -plaintext -H "Authorization: Bearer $$TOKEN" \\
      -d '{"totalAmount": "49.99", "currency": "GBP"}' $address payments.v1.OrderService/CreateOrder

Logs are in $data/log. Ctrl-C stops everything.""")


def welcome(address: str, grpc_address: str, issuer_url: str, data: Path) -> str:
    data_option = "" if data == DATA_DEFAULT else f" --data {data}"
    return _WELCOME.substitute(
        address=address, grpc_address=grpc_address, issuer_url=issuer_url, data=data, data_option=data_option
    )
