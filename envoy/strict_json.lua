-- Reads the body of a REST request once, strictly by RFC 8259, before the transcoder reads it its own way.
--
-- The transcoder forgives much (single quotes, names without quotes, names twice, unknown names) and what it forgives it
-- may read otherwise than the caller meant. It sees only what passes here, and what passes has one meaning.

local contract = require("rest_contract")
local problems = require("problems")

local DEPTH_MAX = 8
local ENTRIES_MAX = 16
-- The names inside a value that is not known are not judged; only its form is.
local ANYTHING = { kind = "anything" }

local MESSAGES = {
  unknown_field = "has a name that is not known here",
  duplicate_field = "has the same name twice",
}

local NOT_JSON = {} -- Thrown, so that a fault of this program is not taken for a fault of the caller.

local function fail()
  error(NOT_JSON, 0)
end

local function skip_space(state)
  state.at = state.text:find("[^ \t\n\r]", state.at) or #state.text + 1
end

local function take(state, expected)
  if state.text:sub(state.at, state.at + #expected - 1) ~= expected then
    fail()
  end
  state.at = state.at + #expected
end

-- The well-formed byte sequences of UTF-8: no overlong form, no surrogate, nothing above U+10FFFF (RFC 3629, section 4).
local UTF8 = {
  "^[\194-\223][\128-\191]",
  "^\224[\160-\191][\128-\191]",
  "^[\225-\236\238\239][\128-\191][\128-\191]",
  "^\237[\128-\159][\128-\191]",
  "^\240[\144-\191][\128-\191][\128-\191]",
  "^[\241-\243][\128-\191][\128-\191][\128-\191]",
  "^\244[\128-\143][\128-\191][\128-\191]",
}

local function take_utf8(state)
  for _, pattern in ipairs(UTF8) do
    local _, last = state.text:find(pattern, state.at)
    if last then
      state.at = last + 1
      return
    end
  end
  fail()
end

local function take_code_unit(state)
  local digits = state.text:match("^\\u(%x%x%x%x)", state.at) or fail()
  state.at = state.at + 6
  return tonumber(digits, 16)
end

-- A NUL and half of a surrogate pair are legal JSON that no text column and no protobuf string can hold.
local function take_escape(state)
  if state.text:find('^\\["\\/bfnrt]', state.at) then
    state.at = state.at + 2
    return
  end
  local unit = take_code_unit(state)
  if unit == 0 or (unit >= 0xDC00 and unit <= 0xDFFF) then
    fail()
  elseif unit >= 0xD800 and unit <= 0xDBFF then
    local low = take_code_unit(state)
    if low < 0xDC00 or low > 0xDFFF then
      fail()
    end
  end
end

local function take_string(state)
  take(state, '"')
  local first = state.at
  while true do
    state.at = state.text:find("[%z\1-\31\"\\\128-\255]", state.at) or fail()
    local byte = state.text:byte(state.at)
    if byte == 0x22 then
      state.at = state.at + 1
      return state.text:sub(first, state.at - 2)
    elseif byte == 0x5C then
      take_escape(state)
    elseif byte >= 0x80 then
      take_utf8(state)
    else
      fail()
    end
  end
end

local function take_number(state)
  local at = state.text:match("^%-?0()", state.at) or state.text:match("^%-?[1-9]%d*()", state.at) or fail()
  at = state.text:match("^%.%d+()", at) or at
  at = state.text:match("^[eE][+-]?%d+()", at) or at
  state.at = at
end

-- One entry per place and code: the name itself is not told, so a second one would say nothing more.
local function report(state, parent, code)
  local key = parent .. "\n" .. code
  if state.reported[key] or #state.entries == ENTRIES_MAX then
    return
  end
  state.reported[key] = true
  state.entries[#state.entries + 1] =
    string.format('{"field":"%s","message":"%s","code":"%s"}', parent, MESSAGES[code], code)
end

local take_value

local function take_name(state)
  local name = take_string(state)
  if name:find("\\", 1, true) then
    fail()
  end
  skip_space(state)
  take(state, ":")
  return name
end

-- A null member is one that is not set. Within a map or a list it would turn into an empty value.
local function refuse_null(state)
  skip_space(state)
  if state.text:sub(state.at, state.at) == "n" then
    fail()
  end
end

-- Answers what the member may be, and its path. A map's keys are the caller's own, so they stay out of the path.
local function member(state, node, path, name)
  if node.kind == "object" and node.fields[name] then
    return node.fields[name], path == "" and name or path .. "." .. name
  elseif node.kind == "map" then
    return node.value, path
  elseif node.kind == "object" then
    report(state, path, "unknown_field")
  end
  return ANYTHING, path
end

local function take_member(state, node, path, depth, seen)
  skip_space(state)
  local name = take_name(state)
  if seen[name] and node ~= ANYTHING then
    report(state, path, "duplicate_field")
  end
  seen[name] = true
  if node.kind == "map" then
    refuse_null(state)
  end
  local value_node, value_path = member(state, node, path, name)
  take_value(state, value_node, value_path, depth)
end

-- Takes `close`, or items with commas between them and then `close`.
local function take_items(state, close, take_item)
  state.at = state.at + 1
  skip_space(state)
  if state.text:sub(state.at, state.at) ~= close then
    take_item()
    while state.text:sub(state.at, state.at) == "," do
      state.at = state.at + 1
      take_item()
    end
  end
  take(state, close)
end

local function take_object(state, node, path, depth)
  if node.kind == "scalar" or node.kind == "list" then
    fail()
  end
  local seen = {}
  take_items(state, "}", function()
    take_member(state, node, path, depth, seen)
  end)
end

local function take_array(state, node, path, depth)
  if node.kind ~= "list" and node ~= ANYTHING then
    fail()
  end
  take_items(state, "]", function()
    if node.kind == "list" then
      refuse_null(state)
    end
    take_value(state, node.item or ANYTHING, path, depth)
  end)
end

local WORDS = { t = "true", f = "false", n = "null" }

take_value = function(state, node, path, depth)
  if depth == DEPTH_MAX then
    fail()
  end
  skip_space(state)
  local first = state.text:sub(state.at, state.at)
  if first == "{" then
    take_object(state, node, path, depth + 1)
  elseif first == "[" then
    take_array(state, node, path, depth + 1)
  elseif first == '"' then
    take_string(state)
  elseif WORDS[first] then
    take(state, WORDS[first])
  else
    take_number(state)
  end
  skip_space(state)
end

-- Answers the entries for `errors`: none when the body is what the contract says. Fails when it is not JSON at all.
local function entries_of(text, node)
  local state = { text = text, at = 1, entries = {}, reported = {} }
  skip_space(state)
  if text:sub(state.at, state.at) ~= "{" then
    fail()
  end
  take_value(state, node, "", 0)
  if state.at <= #text then
    fail()
  end
  return state.entries
end

-- Answers the HTTP status of a refusal and its entries, or nothing.
local function judge(text, node)
  if not node then
    return text ~= "" and 400 or nil
  end
  local is_json, result = pcall(entries_of, text, node)
  if not is_json then
    return result == NOT_JSON and 400 or 500
  elseif #result > 0 then
    return 422, "[" .. table.concat(result, ",") .. "]"
  end
end

-- Answers the HTTP status of a refusal, or nothing.
local function inspect(handle)
  local found = handle:streamInfo():dynamicMetadata():get("rest_edge") or {}
  if found.kind == "native" then
    return nil
  end
  -- Without the mark of rest_edge nobody has judged this request.
  local binding = contract[found.binding or 0]
  if not binding then
    return 500
  end
  local body = handle:body()
  local status, errors = judge(body and body:getBytes(0, body:length()) or "", binding.body)
  if errors then
    handle:streamInfo():dynamicMetadata():set("rest_edge", "errors", errors)
  end
  return status
end

function envoy_on_request(handle)
  -- Envoy lets a request pass when its filter fails, so a fault must not leave this function.
  local is_inspected, status = pcall(inspect, handle)
  if not is_inspected then
    handle:logErr("strict_json has a fault: a request was refused")
    status = 500
  end
  if status then
    problems.refuse(handle, status)
  end
end
