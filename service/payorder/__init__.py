"""payorder takes the payment for an existing order, once and only once.

PayOrder's way, to be read in this order: protos/payments/v1/payment_service.proto, edge/payments.py,
workflows/pay_order.py, ports/processor.py, adapters/database/store.py, and behind it hot_path.py and payments.py.
What may follow what stands in domain/states.py; app/ puts everything together.
"""
