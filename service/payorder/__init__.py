"""payorder takes the payment for an existing order, once and only once.

Read in this order: protos/payments/v1/payment_service.proto, domain/states.py, domain/outcome.py,
ports/processor.py, workflows/pay_order.py, edge/payments.py, app.py.
The statements behind it stand in adapters/database/payments.py.
"""
