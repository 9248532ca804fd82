-- The REST side of the listener: what a REST request may carry, and what its answer looks like.
--
-- A request is judged before any other filter trusts it; its answer comes back here last, so every error leaves as a
-- problem (RFC 9457), whoever made it: the service, the transcoder or Envoy itself. Native gRPC passes through.
-- The dynamic metadata "rest_edge" tells the strict_json filter and the access log what was found:
-- kind, path (without anything that is not ours), method, binding, trace. Given are UNAUTHENTICATED_DETAILS and
-- RATE_LIMITED_DETAILS, what the service answers to a bad token and to too many calls: a google.rpc.Status in base64.

local contract = require("rest_contract")
local problems = require("problems")

local NATIVE = { ["application/grpc"] = true, ["application/grpc+proto"] = true }
-- A method is logged only when it is one of these, because HTTP/2 lets a caller write any text there.
local METHODS = { "GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT" }
-- Nothing else of a REST caller reaches the service: the transcoder would hand every header on as gRPC metadata, where
-- names such as grpc-timeout, x-http-status or x-user-id have a meaning of their own.
local FORWARDED = {
  "host", "authorization", "content-type", "content-length", "transfer-encoding", "accept", "accept-language",
  "user-agent", "origin", "idempotency-key", "last-event-id", "traceparent", "x-request-id", "x-forwarded-for",
  "x-forwarded-proto",
  "x-forwarded-client-cert",
}
local SEGMENTS_LOGGED_MAX = 8

local function set_of(names)
  local set = {}
  for _, name in ipairs(names) do
    set[name] = true
  end
  return set
end

local methods, forwarded, literals = set_of(METHODS), set_of(FORWARDED), {}
for _, binding in ipairs(contract) do
  for _, segment in ipairs(binding.segments) do
    literals[segment.literal or ""] = true
  end
end

-- Hexadecimal groups of these lengths with "-" between them, and nothing else.
local function hexadecimal(...)
  local groups = {}
  for index, length in ipairs({ ... }) do
    groups[index] = ("%x"):rep(length)
  end
  return "^" .. table.concat(groups, "%-") .. "$"
end

local UUID = hexadecimal(8, 4, 4, 4, 12)
local TRACE = hexadecimal(2, 32, 16, 2)

local function split(path)
  local segments = {}
  for segment in (path:sub(2) .. "/"):gmatch("([^/]*)/") do
    segments[#segments + 1] = segment
  end
  return segments
end

-- A path may hold anything, a card number too; only our own words and ids are repeated.
local function redacted(segments)
  local shown = {}
  for index = 1, math.min(#segments, SEGMENTS_LOGGED_MAX) do
    local segment = segments[index]
    shown[index] = (literals[segment] or segment:find(UUID)) and segment or "-"
  end
  return "/" .. table.concat(shown, "/")
end

local function matches(binding, method, segments)
  if binding.method ~= method or #binding.segments ~= #segments then
    return false
  end
  for index, segment in ipairs(binding.segments) do
    local is_parameter = segment.parameter and segments[index]:find("^[%w._~-]+$")
    if not is_parameter and segment.literal ~= segments[index] then
      return false
    end
  end
  return true
end

local function find_binding(method, segments)
  for index, binding in ipairs(contract) do
    if matches(binding, method, segments) then
      return index
    end
  end
end

local function has_only_ids(binding, segments)
  for index, segment in ipairs(binding.segments) do
    if segment.parameter and not segments[index]:find(UUID) then
      return false
    end
  end
  return true
end

-- The transcoder binds a query name into any field of the request message, over the path; so each name must be listed.
local function query_is_allowed(query, names)
  local seen = {}
  for pair in query:gmatch("[^&]+") do
    local name = pair:match("^(%a+)=")
    if not name or not names[name] or seen[name] then
      return false
    end
    seen[name] = true
  end
  return true
end

-- A receipt is one resource in several forms. The transcoder tells methods apart by their path alone, so a form that the
-- query asks for becomes one. JSON is the form of the path itself. Answers what is left of the query.
local function lead_to_form(headers, path, query, segments)
  if #segments ~= 3 or segments[3] ~= "receipt" then
    return query
  elseif query == "format=json" then
    headers:replace(":path", path)
    return ""
  elseif ("&" .. query):find("&format=", 1, true) then
    segments[4] = "document"
    headers:replace(":path", path .. "/document?" .. query)
  end
  return query
end

local function is_json(content_type)
  local charset = (content_type or ""):lower():match("^application/json%s*(.*)$")
  return charset == "" or (charset and charset:find('^;%s*charset="?utf%-8"?%s*$') ~= nil)
end

local function is_encoded(headers)
  local encoding = headers:get("content-encoding")
  return encoding ~= nil and encoding:lower() ~= "identity"
end

-- Answers the index of the binding, or nothing and the HTTP status of the refusal.
local function judge(headers, segments, query)
  local index = find_binding(headers:get(":method"), segments)
  if not index then
    return nil, 404
  end
  local binding = contract[index]
  if not has_only_ids(binding, segments) or not query_is_allowed(query, binding.query) then
    return nil, 400
  elseif is_encoded(headers) or (binding.body and not is_json(headers:get("content-type"))) then
    return nil, 415
  elseif headers:getNumValues("authorization") > 1 then
    return nil, 401
  end
  return index
end

local function remove_others(headers)
  local others = {}
  for name in pairs(headers) do
    if name:sub(1, 1) ~= ":" and not forwarded[name] then
      others[name] = true
    end
  end
  for name in pairs(others) do
    headers:remove(name)
  end
end

-- A traceparent of another form says nothing to a tracer and could bring anything into the log.
local function has_trace(headers)
  return headers:getNumValues("traceparent") == 1 and headers:get("traceparent"):find(TRACE) ~= nil
end

-- Answers whether the request is gRPC, and whether in a form that is offered. Envoy takes application/grpc+json for gRPC
-- too and answers it so, whatever it says.
local function grpc_form(headers)
  local content_type = headers:get("content-type") or ""
  local is_grpc = NATIVE[content_type] or content_type:find("^application/grpc%+") ~= nil
  return is_grpc, NATIVE[content_type] and headers:get(":method") == "POST"
end

-- A scheme is read in any case (RFC 9110, section 11.1), but the token filter knows it as "Bearer" alone.
local function write_scheme(headers)
  local scheme, token = (headers:get("authorization") or ""):match("^(%a+) (.*)$")
  if scheme and scheme ~= "Bearer" and scheme:lower() == "bearer" then
    headers:replace("authorization", "Bearer " .. token)
  end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  write_scheme(headers)
  local metadata = handle:streamInfo():dynamicMetadata()
  if has_trace(headers) then
    metadata:set("rest_edge", "trace", headers:get("traceparent"))
  end
  local is_grpc, is_offered = grpc_form(headers)
  if is_grpc then
    metadata:set("rest_edge", "kind", "native")
    if not is_offered then
      -- Envoy makes UNIMPLEMENTED of this status, and the message of this text.
      handle:respond({ [":status"] = "404" }, "Only application/grpc with protobuf messages is offered")
    end
    return
  end
  local path, query = (headers:get(":path") or "/"):match("^([^?]*)%??(.*)$")
  local segments = split(path)
  local method = headers:get(":method")
  metadata:set("rest_edge", "kind", "rest")
  metadata:set("rest_edge", "path", redacted(segments))
  metadata:set("rest_edge", "method", methods[method] and method or "-")
  query = lead_to_form(headers, path, query, segments)

  local index, status = judge(headers, segments, query)
  if not index then
    problems.refuse(handle, status)
    return
  end
  if not has_trace(headers) then
    headers:remove("traceparent")
  end
  remove_others(headers)
  -- Tells the service that headers of its answer will be read.
  headers:replace("x-edge", "rest")
  metadata:set("rest_edge", "binding", index)
end

local function remove_grpc(fields)
  local found = {}
  for name in pairs(fields) do
    if name:find("^grpc%-") or name:find("%-bin$") then
      found[name] = true
    end
  end
  for name in pairs(found) do
    fields:remove(name)
  end
end

-- The route knows that something is created; only the service knows that an outcome is still open, and may say 202.
local function answer_success(handle, headers)
  local status = handle:metadata():get("success_status")
  if status and headers:get(":status") == "200" then
    headers:replace(":status", headers:get("x-http-status") == "202" and "202" or status)
  end
  if not headers:get("cache-control") then
    headers:replace("cache-control", "no-store")
  end
end

-- Of a call that Envoy's own limit has refused: in how many seconds its bucket has something again.
local function write_retry_after(headers)
  local seconds = headers:get("x-ratelimit-reset")
  if seconds and seconds ~= "0" then
    headers:replace("retry-after", seconds)
  end
end

local function answer_problem(handle, headers, found)
  local status = tonumber(headers:get(":status"))
  local from_service = headers:get("grpc-status") ~= nil
  -- The answer to a HEAD has no body, and one that is given to it would be read as the next answer.
  local body = found.method ~= "HEAD" and handle:body(true) or nil
  local text = body and body:getBytes(0, body:length()) or ""
  local problem, problem_status = problems.of_service(text, found.path)
  if not problem then
    problem, problem_status = problems.of_edge(problems.cause(status, text, from_service), found.path, found.errors)
  end
  if body then
    body:setBytes(problem)
  end
  -- Waiting for the body has ended the life of the headers that were taken before it.
  headers = handle:headers()
  headers:replace(":status", problem_status)
  if problem_status == "429" and not from_service then
    write_retry_after(headers)
  end
  problems.set_headers(headers, problem_status)
end

-- The transcoder writes each message of a stream as a data line, and whole ones at a time. The number and the type, which
-- a client knows an event by, stand first in it; text of others cannot look like that, as its quotes are escaped. Without
-- a number it tells that the connection still stands: a comment, which clients pass over.
local EVENT = 'data: {"sequence":(%d+),"eventId":"[^"]*","eventType":"([^"]*)"'
local QUIET = 'data: {"sequence":0,[^\n]*'

local function write_events(handle)
  for chunk in handle:bodyChunks() do
    local text = chunk:getBytes(0, chunk:length())
    chunk:setBytes((text:gsub(QUIET, ":"):gsub(EVENT, "id: %1\nevent: %2\n%0")))
  end
end

-- A refusal looks the same to every caller, whoever refuses. Of a bad token Envoy would name the fault and the address,
-- and would call a token for another audience a lack of permission.
local function answer_native(headers)
  if not headers:get("grpc-status") or headers:get("grpc-status-details-bin") then
    return
  elseif headers:get("www-authenticate") then
    headers:replace("www-authenticate", "Bearer")
    headers:replace("grpc-status", "16")
    headers:replace("grpc-message", problems.detail(401))
    headers:replace("grpc-status-details-bin", UNAUTHENTICATED_DETAILS)
  elseif headers:get("grpc-status") == "8" and headers:get("retry-after") then
    headers:replace("grpc-message", problems.detail(429))
    headers:replace("grpc-status-details-bin", RATE_LIMITED_DETAILS)
    write_retry_after(headers)
  end
end

function envoy_on_response(handle)
  local found = handle:streamInfo():dynamicMetadata():get("rest_edge")
  if not found then
    return
  end
  local headers = handle:headers()
  if found.kind == "native" then
    answer_native(headers)
    return
  elseif tonumber(headers:get(":status")) < 400 then
    answer_success(handle, headers)
  else
    answer_problem(handle, headers, found)
  end
  headers = handle:headers()
  headers:remove("x-http-status")
  remove_grpc(headers)
  if headers:get("content-type") == "text/event-stream" then
    write_events(handle)
  end
end
