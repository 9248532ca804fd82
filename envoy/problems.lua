-- Problems (RFC 9457) as REST callers see them: the service's own, and the fixed ones of the edge.
--
-- Both have the members of payments.v1.Problem in its order. No text that was received is repeated.

local problems = {}

local TYPE = "urn:payorder:problem:"

local UNKNOWN = "Repeat the request with the same Idempotency-Key, or read the order."

-- By HTTP status: reason, title, detail. A reason that the service has too has its title there.
local FIXED = {
  [400] = { "BAD_REQUEST", "The request cannot be read", "The request is not of the documented form." },
  [401] = { "UNAUTHENTICATED", "Authentication is required", "Send a valid access token as a bearer token." },
  [404] = { "NOT_FOUND", "There is nothing here", "No operation has this path and method." },
  [408] = { "REQUEST_TIMEOUT", "The request took too long to arrive", "It was not complete in time, and nothing was done." },
  [413] = { "REQUEST_TOO_LARGE", "The request is too large", "The body exceeds 32768 bytes." },
  [415] = { "UNSUPPORTED_MEDIA_TYPE", "The media type is not supported", "Send application/json in UTF-8, not compressed." },
  [422] = { "INVALID_FIELDS", "Some fields are not valid", "See errors for each field." },
  [429] = { "RATE_LIMITED", "Too many requests", "Nothing was done; repeat later." },
  [500] = { "INTERNAL", "Something went wrong", UNKNOWN },
  [503] = { "BUSY", "The service is busy", "Nothing was done; repeat later." },
  [504] = { "DEADLINE_EXCEEDED", "The answer took too long", "The outcome is not known here. " .. UNKNOWN },
}

-- The router says in these words that a request never left Envoy. Any other end of a connection leaves open what happened.
local NEVER_SENT = {
  "no healthy upstream",
  "reset reason: overflow",
  "reset reason: remote connection failure",
  "reset reason: local connection failure",
  "reset reason: connection timeout",
}

-- Quotes inside a JSON string are escaped, so no text within another detail of the status can look like this mark.
local MARK = '{"@type":"type.googleapis.com/payments.v1.Problem",'

-- Cuts the Problem, the last detail, out of a google.rpc.Status in JSON and adds the path.
-- Answers the text and the status, or nothing.
function problems.of_service(text, path)
  local _, last = text:find(MARK, 1, true)
  if not last or text:sub(-3) ~= "}]}" then
    return nil
  end
  local members = text:sub(last + 1, -4)
  local status = members:match(',"status":([45]%d%d),')
  local reason = members:find(',"reason":"', 1, true)
  if not status or not reason then
    return nil
  end
  return "{" .. members:sub(1, reason) .. '"instance":"' .. path .. '",' .. members:sub(reason + 1) .. "}", status
end

local function was_never_sent(text)
  for _, words in ipairs(NEVER_SENT) do
    if text:find(words, 1, true) then
      return true
    end
  end
  return false
end

-- Which status explains a refusal without a Problem of its own. A status that is not foreseen promises nothing: 500.
function problems.cause(status, text, from_service)
  if status == 403 and not from_service then
    return 401 -- The token filter says so of a token for another audience.
  elseif status == 503 and not was_never_sent(text) then
    return 500
  end
  return FIXED[status] and status or 500
end

function problems.detail(status)
  return FIXED[status][3]
end

-- Answers the text and the status. `path` holds nothing that JSON would escape; `errors` is a JSON array.
function problems.of_edge(status, path, errors)
  local reason, title, detail = unpack(FIXED[status])
  local kind = TYPE .. reason:lower():gsub("_", "-")
  local text = string.format(
    '{"type":"%s","title":"%s","status":%d,"detail":"%s","instance":"%s","reason":"%s","errors":%s}',
    kind, title, status, detail, path, reason, errors or "[]"
  )
  return text, tostring(status)
end

function problems.set_headers(headers, status)
  headers:replace("content-type", "application/problem+json")
  headers:replace("cache-control", "no-store")
  if status == "401" then
    headers:replace("www-authenticate", "Bearer")
  elseif (status == "429" or status == "503") and not headers:get("retry-after") then
    headers:replace("retry-after", "1")
  end
end

-- The body is only a placeholder: the answer is written where every answer is, in envoy_on_response of rest_edge.
function problems.refuse(handle, status)
  handle:respond({ [":status"] = tostring(status), ["content-type"] = "application/problem+json" }, "{}")
end

return problems
