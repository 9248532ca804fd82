-- Made from the descriptor set by tools/rest_contract.py. Run ./dev generate instead of editing.
return {
  {
    rpc = "payments.v1.OrderService/CreateOrder",
    method = "POST",
    segments = { { literal = "orders" } },
    query = {},
    body = {
      kind = "object",
      fields = {
        petId = { kind = "scalar" },
        totalAmount = { kind = "scalar" },
        currency = { kind = "scalar" },
        description = { kind = "scalar" },
        metadata = { kind = "map", value = { kind = "scalar" } },
      },
    },
  },
  {
    rpc = "payments.v1.OrderService/GetOrder",
    method = "GET",
    segments = { { literal = "orders" }, { parameter = "order_id" } },
    query = {},
  },
  {
    rpc = "payments.v1.OrderService/ListOrders",
    method = "GET",
    segments = { { literal = "orders" } },
    query = { pageSize = true, pageToken = true },
  },
  {
    rpc = "payments.v1.OrderService/CancelOrder",
    method = "DELETE",
    segments = { { literal = "orders" }, { parameter = "order_id" } },
    query = {},
  },
  {
    rpc = "payments.v1.PaymentService/PayOrder",
    method = "POST",
    segments = { { literal = "orders" }, { parameter = "order_id" }, { literal = "payment" } },
    query = {},
    body = {
      kind = "object",
      fields = {
        amount = { kind = "scalar" },
        currency = { kind = "scalar" },
        source = {
          kind = "object",
          fields = {
            object = { kind = "scalar" },
            name = { kind = "scalar" },
            number = { kind = "scalar" },
            cvc = { kind = "scalar" },
            expMonth = { kind = "scalar" },
            expYear = { kind = "scalar" },
            addressLine1 = { kind = "scalar" },
            addressLine2 = { kind = "scalar" },
            addressCity = { kind = "scalar" },
            addressCountry = { kind = "scalar" },
            addressPostCode = { kind = "scalar" },
            sortCode = { kind = "scalar" },
            routingNumber = { kind = "scalar" },
            accountType = { kind = "scalar" },
            bankName = { kind = "scalar" },
            country = { kind = "scalar" },
          },
        },
      },
    },
  },
  {
    rpc = "payments.v1.PaymentService/GetPayment",
    method = "GET",
    segments = { { literal = "payments" }, { parameter = "payment_id" } },
    query = {},
  },
  {
    rpc = "payments.v1.PaymentService/GetPayment",
    method = "GET",
    segments = { { literal = "orders" }, { parameter = "order_id" }, { literal = "payment" } },
    query = {},
  },
  {
    rpc = "payments.v1.PaymentService/ListPayments",
    method = "GET",
    segments = { { literal = "orders" }, { parameter = "order_id" }, { literal = "payments" } },
    query = { pageSize = true, pageToken = true },
  },
}
