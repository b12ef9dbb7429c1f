-- A Wireshark dissector for libcrust: docs/TRACER.md says how to use it, docs/PROTOCOL.md
-- what the bytes are. It is pure Lua, for the Lua 5.2 of Wireshark 4.0 and for later ones,
-- since Wireshark lets a script call no cipher before 4.2, and a plugin in C must be built
-- for each version.
--
-- It reads tracer links, from any frame on; with a network name what that name unmasks,
-- which are the first flights of TCP and UDP, and beacons; and with a key log whole links
-- and associations. Without either all but tracer links is random bytes, also here.

local band, bor, bxor, lrotate, rshift, lshift
if bit32 then
  band, bor, bxor, lrotate, rshift, lshift = bit32.band, bit32.bor, bit32.bxor, bit32.lrotate, bit32.rshift, bit32.lshift
else -- Lua 5.3 and later have operators, which 5.2 could not even read
  band, bor, bxor, lrotate, rshift, lshift = load([[
    local function w(x) return math.tointeger(x) & 0xffffffff end
    return function(a, b) return w(a) & w(b) end, function(a, b) return w(a) | w(b) end,
      function(a, b) return w(a) ~ w(b) end,
      function(a, n) a = w(a); return ((a << n) | (a >> (32 - n))) & 0xffffffff end,
      function(a, n) return w(a) >> n end, function(a, n) return (w(a) << n) & 0xffffffff end]])()
end
local byte, char, sub, rep, floor = string.byte, string.char, string.sub, string.rep, math.floor
local unpack = table.unpack or unpack

-------------------------------------------------------------------------------
-- Ciphers. Slow, and fast enough for captures.

local crypto = {}

local function word(s, at) -- little-endian
  local a, b, c, d = byte(s, at, at + 3)
  return a + b * 0x100 + c * 0x10000 + d * 0x1000000
end

local function bytes_of(w)
  return char(w % 256, floor(w / 256) % 256, floor(w / 65536) % 256, floor(w / 16777216) % 256)
end

local function big(s, at, n) -- big-endian, up to 6 bytes
  local v = 0
  for i = at, at + n - 1 do v = v * 256 + byte(s, i) end
  return v
end

function crypto.hex(s) return (s:gsub(".", function(c) return string.format("%02x", byte(c)) end)) end
function crypto.unhex(s) return (s:gsub("%x%x", function(x) return char(tonumber(x, 16)) end)) end

-- BLAKE2b (RFC 7693), 64-bit words as halves.
local iv_hi = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 }
local iv_lo = { 0xf3bcc908, 0x84caa73b, 0xfe94f82b, 0x5f1d36f1, 0xade682d1, 0x2b3e6c1f, 0xfb41bd6b, 0x137e2179 }
local sigma = {
  { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 }, { 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3 },
  { 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4 }, { 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8 },
  { 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13 }, { 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9 },
  { 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11 }, { 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10 },
  { 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5 }, { 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0 },
}
sigma[11], sigma[12] = sigma[1], sigma[2]
local columns = {
  { 1, 5, 9, 13 }, { 2, 6, 10, 14 }, { 3, 7, 11, 15 }, { 4, 8, 12, 16 },
  { 1, 6, 11, 16 }, { 2, 7, 12, 13 }, { 3, 8, 9, 14 }, { 4, 5, 10, 15 },
}

local function compress(hh, hl, block, count, last)
  local mh, ml, vh, vl = {}, {}, {}, {}
  for i = 0, 15 do ml[i], mh[i] = word(block, 8 * i + 1), word(block, 8 * i + 5) end
  for i = 1, 8 do vh[i], vl[i], vh[i + 8], vl[i + 8] = hh[i], hl[i], iv_hi[i], iv_lo[i] end
  vl[13] = bxor(vl[13], count)
  if last then vh[15], vl[15] = bxor(vh[15], 0xffffffff), bxor(vl[15], 0xffffffff) end
  local function add(a, h, l)
    local s = vl[a] + l
    vl[a] = s % 0x100000000
    vh[a] = (vh[a] + h + (s >= 0x100000000 and 1 or 0)) % 0x100000000
  end
  for r = 1, 12 do
    local s = sigma[r]
    for g = 1, 8 do
      local a, b, c, d = columns[g][1], columns[g][2], columns[g][3], columns[g][4]
      local x, y = s[2 * g - 1], s[2 * g]
      add(a, vh[b], vl[b]); add(a, mh[x], ml[x])
      vh[d], vl[d] = bxor(vl[d], vl[a]), bxor(vh[d], vh[a]) -- by 32
      add(c, vh[d], vl[d])
      local h, l = bxor(vh[b], vh[c]), bxor(vl[b], vl[c]) -- by 24
      vh[b], vl[b] = bor(rshift(h, 24), lshift(l, 8)), bor(rshift(l, 24), lshift(h, 8))
      add(a, vh[b], vl[b]); add(a, mh[y], ml[y])
      h, l = bxor(vh[d], vh[a]), bxor(vl[d], vl[a]) -- by 16
      vh[d], vl[d] = bor(rshift(h, 16), lshift(l, 16)), bor(rshift(l, 16), lshift(h, 16))
      add(c, vh[d], vl[d])
      h, l = bxor(vh[b], vh[c]), bxor(vl[b], vl[c]) -- by 63
      vh[b], vl[b] = bor(lshift(h, 1), rshift(l, 31)), bor(lshift(l, 1), rshift(h, 31))
    end
  end
  for i = 1, 8 do
    hh[i] = bxor(bxor(hh[i], vh[i]), vh[i + 8])
    hl[i] = bxor(bxor(hl[i], vl[i]), vl[i + 8])
  end
end

-- keyed returns BLAKE2b-256(key, data), of a key of 32 bytes.
function crypto.keyed(key, data)
  local hh, hl = {}, {}
  for i = 1, 8 do hh[i], hl[i] = iv_hi[i], iv_lo[i] end
  hl[1] = bxor(hl[1], bxor(0x01010000, bxor(32 * 256, 32)))
  local all = key .. rep("\0", 96) .. data
  local n, at = #all, 0
  while n - at > 128 do
    compress(hh, hl, sub(all, at + 1, at + 128), at + 128, false)
    at = at + 128
  end
  compress(hh, hl, sub(all, at + 1) .. rep("\0", 128 - (n - at)), n, true)
  local out = {}
  for i = 1, 4 do out[i] = bytes_of(hl[i]) .. bytes_of(hh[i]) end
  return table.concat(out)
end

-- ChaCha20 (RFC 8439) and XChaCha20 (draft-irtf-cfrg-xchacha).
local quarters = {
  { 1, 5, 9, 13 }, { 2, 6, 10, 14 }, { 3, 7, 11, 15 }, { 4, 8, 12, 16 },
  { 1, 6, 11, 16 }, { 2, 7, 12, 13 }, { 3, 8, 9, 14 }, { 4, 5, 10, 15 },
}

local function chacha_rounds(x)
  for _ = 1, 10 do
    for i = 1, 8 do
      local q = quarters[i]
      local a, b, c, d = q[1], q[2], q[3], q[4]
      local va, vb, vc, vd = x[a], x[b], x[c], x[d]
      va = (va + vb) % 0x100000000; vd = lrotate(bxor(vd, va), 16)
      vc = (vc + vd) % 0x100000000; vb = lrotate(bxor(vb, vc), 12)
      va = (va + vb) % 0x100000000; vd = lrotate(bxor(vd, va), 8)
      vc = (vc + vd) % 0x100000000; vb = lrotate(bxor(vb, vc), 7)
      x[a], x[b], x[c], x[d] = va, vb, vc, vd
    end
  end
end

local function chacha_state(key, tail)
  local x = { 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574 }
  for i = 0, 7 do x[5 + i] = word(key, 4 * i + 1) end
  for i = 0, 3 do x[13 + i] = word(tail, 4 * i + 1) end
  return x
end

-- chacha20 applies the stream of a key and a nonce of 12 bytes, from a block on.
function crypto.chacha20(key, nonce, block, data)
  local out = {}
  for at = 1, #data, 64 do
    local start = chacha_state(key, bytes_of(block) .. nonce)
    local x = chacha_state(key, bytes_of(block) .. nonce)
    chacha_rounds(x)
    block = block + 1
    for i = 1, 16 do
      local from = at + 4 * (i - 1)
      if from > #data then break end
      local stream = (x[i] + start[i]) % 0x100000000
      if from + 3 <= #data then
        out[#out + 1] = bytes_of(bxor(stream, word(data, from)))
      else
        local piece = sub(data, from) .. "\0\0\0"
        out[#out + 1] = sub(bytes_of(bxor(stream, word(piece, 1))), 1, #data - from + 1)
      end
    end
  end
  return table.concat(out)
end

local function hchacha(key, nonce)
  local x = chacha_state(key, nonce)
  chacha_rounds(x)
  local out = {}
  for i = 1, 4 do out[i], out[i + 4] = bytes_of(x[i]), bytes_of(x[12 + i]) end
  return table.concat(out)
end

-- xchacha20 is the same with a nonce of 24 bytes.
function crypto.xchacha20(key, nonce, block, data)
  return crypto.chacha20(hchacha(key, sub(nonce, 1, 16)), "\0\0\0\0" .. sub(nonce, 17, 24), block, data)
end

-- Poly1305 (RFC 8439), in limbs of 22 bits; 2^132 = 20 modulo 2^130 - 5.
local function limbs(s) -- little-endian, up to 17 bytes
  local l, acc, bits, n = {}, 0, 0, 1
  for i = 1, #s do
    acc, bits = acc + byte(s, i) * 2 ^ bits, bits + 8
    if bits >= 22 then
      l[n] = acc % 0x400000
      acc, bits, n = floor(acc / 0x400000), bits - 22, n + 1
    end
  end
  l[n] = acc
  for i = n + 1, 6 do l[i] = 0 end
  return l
end

local function poly1305(key, data)
  local k = { byte(key, 1, 16) }
  for _, i in ipairs({ 4, 8, 12, 16 }) do k[i] = band(k[i], 15) end
  for _, i in ipairs({ 5, 9, 13 }) do k[i] = band(k[i], 252) end
  local r, h = limbs(char(unpack(k))), { 0, 0, 0, 0, 0, 0 }
  for at = 1, #data, 16 do
    local m = limbs(sub(data, at, at + 15) .. "\1")
    for i = 1, 6 do h[i] = h[i] + m[i] end
    local p = {}
    for i = 1, 6 do
      local sum = 0
      for j = 1, 6 do
        local k2 = i - j + 1
        sum = sum + (k2 >= 1 and h[j] * r[k2] or 20 * h[j] * r[k2 + 6])
      end
      p[i] = sum
    end
    local carry = 0
    for i = 1, 6 do
      local v = p[i] + carry
      h[i], carry = v % 0x400000, floor(v / 0x400000)
    end
    h[1] = h[1] + 20 * carry
    h[2], h[1] = h[2] + floor(h[1] / 0x400000), h[1] % 0x400000
  end
  -- The rest modulo 2^130 - 5, whose top limb has 20 bits.
  for _ = 1, 3 do
    local carry = floor(h[6] / 0x100000)
    h[6] = h[6] % 0x100000
    h[1] = h[1] + 5 * carry
    for i = 1, 5 do h[i + 1], h[i] = h[i + 1] + floor(h[i] / 0x400000), h[i] % 0x400000 end
  end
  local g, carry = {}, 5
  for i = 1, 6 do
    local v, most = h[i] + carry, i == 6 and 0x100000 or 0x400000
    g[i], carry = v % most, floor(v / most)
  end
  if carry > 0 then h = g end
  local s, out, acc, bits, at, over = { byte(key, 17, 32) }, {}, 0, 0, 1, 0
  for i = 1, 16 do
    while bits < 8 do acc, bits, at = acc + (h[at] or 0) * 2 ^ bits, bits + 22, at + 1 end
    local v = acc % 256 + s[i] + over
    out[i], over = char(v % 256), floor(v / 256)
    acc, bits = floor(acc / 256), bits - 8
  end
  return table.concat(out)
end

-- chacha_open opens what is sealed with ChaCha20-Poly1305; nil when it is not.
function crypto.chacha_open(key, nonce, sealed, ad)
  if #sealed < 16 then return nil end
  local text, tag = sub(sealed, 1, -17), sub(sealed, -16)
  local function padded(s) return s .. rep("\0", -#s % 16) end
  local function size(n) return bytes_of(n) .. "\0\0\0\0" end
  local mac = poly1305(crypto.chacha20(key, nonce, 0, rep("\0", 32)), padded(ad) .. padded(text) .. size(#ad) .. size(#text))
  if mac ~= tag then return nil end
  return crypto.chacha20(key, nonce, 1, text)
end

function crypto.xchacha_open(key, nonce, sealed)
  return crypto.chacha_open(hchacha(key, sub(nonce, 1, 16)), "\0\0\0\0" .. sub(nonce, 17, 24), sealed, "")
end

-- AES (FIPS 197).
local sbox, unsbox, mul2 = {}, {}, {}
do
  local p, q = 1, 1
  for i = 0, 255 do mul2[i] = i < 128 and 2 * i or bxor(2 * i - 256, 0x1b) end
  repeat
    p = bxor(p, mul2[p])
    q = bxor(q, band(lshift(q, 1), 255)); q = bxor(q, band(lshift(q, 2), 255)); q = bxor(q, band(lshift(q, 4), 255))
    if q >= 128 then q = bxor(q, 9) end
    local r = function(n) return band(bor(lshift(q, n), rshift(q, 8 - n)), 255) end
    sbox[p] = bxor(bxor(bxor(bxor(q, r(1)), bxor(r(2), r(3))), r(4)), 0x63)
  until p == 1
  sbox[0] = 0x63
  for i = 0, 255 do unsbox[sbox[i]] = i end
end
local t0, t1, t2, t3 = {}, {}, {}, {} -- big-endian columns
for i = 0, 255 do
  local s = sbox[i]
  local s2, s3 = mul2[s], bxor(mul2[s], s)
  t0[i] = s2 * 0x1000000 + s * 0x10000 + s * 0x100 + s3
  t1[i] = s3 * 0x1000000 + s2 * 0x10000 + s * 0x100 + s
  t2[i] = s * 0x1000000 + s3 * 0x10000 + s2 * 0x100 + s
  t3[i] = s * 0x1000000 + s * 0x10000 + s3 * 0x100 + s2
end

local function subword(w)
  return sbox[floor(w / 0x1000000)] * 0x1000000 + sbox[floor(w / 0x10000) % 256] * 0x10000 +
    sbox[floor(w / 0x100) % 256] * 0x100 + sbox[w % 256]
end

-- aes_key expands a key of 16 or 32 bytes.
function crypto.aes_key(key)
  local nk, w, rcon = #key / 4, {}, 1
  for i = 0, nk - 1 do w[i] = big(key, 4 * i + 1, 4) end
  local rounds = nk + 6
  for i = nk, 4 * (rounds + 1) - 1 do
    local t = w[i - 1]
    if i % nk == 0 then
      t = bxor(subword(lrotate(t, 8)), rcon * 0x1000000)
      rcon = mul2[rcon]
    elseif nk > 6 and i % nk == 4 then
      t = subword(t)
    end
    w[i] = bxor(w[i - nk], t)
  end
  return { w = w, rounds = rounds }
end

-- aes_block encrypts one block, as four big-endian words.
function crypto.aes_block(k, a, b, c, d)
  local w = k.w
  a, b, c, d = bxor(a, w[0]), bxor(b, w[1]), bxor(c, w[2]), bxor(d, w[3])
  for r = 1, k.rounds - 1 do
    local function column(x, y, z, u, key)
      return bxor(bxor(bxor(t0[floor(x / 0x1000000)], t1[floor(y / 0x10000) % 256]), bxor(t2[floor(z / 0x100) % 256], t3[u % 256])), key)
    end
    a, b, c, d = column(a, b, c, d, w[4 * r]), column(b, c, d, a, w[4 * r + 1]), column(c, d, a, b, w[4 * r + 2]), column(d, a, b, c, w[4 * r + 3])
  end
  local function last(x, y, z, u, key)
    return bxor(sbox[floor(x / 0x1000000)] * 0x1000000 + sbox[floor(y / 0x10000) % 256] * 0x10000 + sbox[floor(z / 0x100) % 256] * 0x100 + sbox[u % 256], key)
  end
  local n = 4 * k.rounds
  return last(a, b, c, d, w[n]), last(b, c, d, a, w[n + 1]), last(c, d, a, b, w[n + 2]), last(d, a, b, c, w[n + 3])
end

local function big_bytes(w) return char(floor(w / 16777216) % 256, floor(w / 65536) % 256, floor(w / 256) % 256, w % 256) end

local function mul(a, b)
  local p = 0
  while b > 0 do
    if b % 2 == 1 then p = bxor(p, a) end
    a, b = mul2[a], floor(b / 2)
  end
  return p
end

-- aes_unblock decrypts one block of 16 bytes.
function crypto.aes_unblock(k, block)
  local s = { byte(block, 1, 16) }
  local function add(r)
    for i = 0, 15 do s[i + 1] = bxor(s[i + 1], floor(k.w[4 * r + floor(i / 4)] / 2 ^ (24 - 8 * (i % 4))) % 256) end
  end
  add(k.rounds)
  for r = k.rounds - 1, 0, -1 do
    local t = {}
    for c = 0, 3 do
      for i = 0, 3 do t[4 * ((c + i) % 4) + i + 1] = unsbox[s[4 * c + i + 1]] end
    end
    s = t
    add(r)
    if r > 0 then
      for c = 0, 3 do
        local x = { s[4 * c + 1], s[4 * c + 2], s[4 * c + 3], s[4 * c + 4] }
        for i = 0, 3 do
          s[4 * c + i + 1] = bxor(bxor(mul(x[i + 1], 14), mul(x[(i + 1) % 4 + 1], 11)), bxor(mul(x[(i + 2) % 4 + 1], 13), mul(x[(i + 3) % 4 + 1], 9)))
        end
      end
    end
  end
  return char(unpack(s))
end

-- gcm_text decrypts what is sealed with AES-256-GCM. It does not check the tag: that would take
-- a multiplication of 128 bits for each block. Who uses it checks what comes out.
function crypto.gcm_text(k, nonce, sealed)
  local text, out = sub(sealed, 1, -17), {}
  local a, b, c = big(nonce, 1, 4), big(nonce, 5, 4), big(nonce, 9, 4)
  for at = 1, #text, 16 do
    local x, y, z, u = crypto.aes_block(k, a, b, c, floor(at / 16) + 2)
    local pad, part = big_bytes(x) .. big_bytes(y) .. big_bytes(z) .. big_bytes(u), sub(text, at, at + 15)
    local p = { byte(part, 1, 16) }
    for i = 1, #part do p[i] = char(bxor(p[i], byte(pad, i))) end
    out[#out + 1] = table.concat(p)
  end
  return table.concat(out)
end

-------------------------------------------------------------------------------
-- Fields

local crust = Proto("crust", "libcrust")

local names = {
  types = { [0] = "Handshake", "Frames", "Piece", "Control" },
  frames = {
    [0] = "Pad", "Message", "Ping", "Pong", "Claim", "Chosen", "Refused", "Close", "Ack", "Datagram", "Seen", "Seek", "Reply",
    "RelayOpen", "RelayData", "RelayCredit", "RelayClose", [20] = "Echo", [21] = "Reach", [22] = "Reached", [24] = "Gossip", [26] = "Doors",
  },
  reasons = { [0] = "other", "disconnect", "stopping", "duplicate", "not allowed", "limit", "protocol", "banned", "over" },
  relay = { [0] = "closed in order", "broken", "not allowed", "not connected to the target", "a limit is reached" },
  transports = { "tcp", "utp", "tracer" },
  roles = { [0] = "node", "client" },
  gossip = { "news", "new keys", "ranges", "have", "want", "contacts" },
  modes = { [0] = "skip", "sum", "keys" },
  reached = { [0] = "done", "off", "too many", "impossible" },
  beacon = { "hello", "answer", "goodbye" },
  flights = { "offer", "answer", "finish", "cookie" },
  inner = { [0] = "Pad", "Ping", "Ack", "Stream", "Datagram", "Challenge", "Response", "Close" },
  ciphers = { "ChaCha20-Poly1305", "AES-256-GCM" },
  steps = { "offer", "hello of the responder", "hello of the initiator" },
  kinds = { "tracer", "secure TCP", "secure datagrams", "beacon" },
  fields = {
    "version", "peer", "app id", "role", "instance", "ciphers", "lost-after", "resume", "unacked", "flags", [16] = "binding",
  },
}

local f, all_fields = {}, {}
local function field(kind, abbr, label, ...)
  local p = ProtoField[kind]("crust." .. abbr, label, ...)
  f[abbr] = p
  all_fields[#all_fields + 1] = p
end
field("uint8", "kind", "Kind", base.DEC, names.kinds)
field("bool", "clear", "In clear")
field("bytes", "magic", "Magic")
field("uint8", "type", "Type", base.DEC, names.types)
field("uint8", "flags", "Flags", base.HEX)
field("bool", "flags.dialer", "Sent by who dialled", 8, nil, 1)
field("uint8", "priority", "Priority")
field("uint8", "zero", "Zero", base.HEX)
field("uint32", "len", "Length")
field("uint32", "left", "Left of the message")
field("uint64", "number", "Number")
field("bytes", "trailer", "Trailer")
field("bytes", "partial", "Rest of a frame that began before the capture")
field("uint8", "shake.step", "Step", base.DEC, names.steps)
field("bytes", "shake.nonce", "Nonce")
field("uint16", "shake.len", "Length of the payload")
field("bytes", "shake.proof", "Proof")
field("bytes", "shake.signature", "Signature")
field("uint8", "hello.tag", "Tag", base.DEC, names.fields)
field("uint16", "hello.len", "Length")
field("bytes", "hello.value", "Value")
field("uint8", "hello.version", "Version")
field("bytes", "hello.peer", "Peer id")
field("string", "hello.app_id", "App id")
field("uint8", "hello.role", "Role", base.DEC, names.roles)
field("uint64", "hello.instance", "Instance", base.HEX)
field("uint8", "hello.ciphers", "Ciphers", base.HEX)
field("bool", "hello.ciphers.chacha", "ChaCha20-Poly1305", 8, nil, 1)
field("bool", "hello.ciphers.aes", "AES-256-GCM", 8, nil, 2)
field("uint32", "hello.lost_after", "Lost after, ms")
field("uint32", "hello.resume", "Resume window, ms")
field("uint32", "hello.unacked", "Room for what is not acknowledged")
field("uint8", "hello.flags", "Flags", base.HEX)
field("bool", "hello.flags.relay", "Carries links of others", 8, nil, 1)
field("bool", "hello.flags.gossip", "Answers gossip", 8, nil, 2)
field("bool", "hello.flags.news", "Takes news", 8, nil, 4)
field("bool", "hello.flags.ready", "Would take a session now", 8, nil, 8)
field("uint64", "hello.cid", "CID", base.HEX)
field("bytes", "hello.header_key", "Header key")
field("uint8", "frame.type", "Frame", base.DEC, names.frames)
field("uint64", "frame.len", "Length")
field("bytes", "frame.body", "Body")
field("uint8", "message.priority", "Priority")
field("bytes", "message.data", "Message")
field("uint64", "message.size", "Size of the whole message")
field("bytes", "piece.data", "Piece")
field("uint64", "ping", "Value", base.HEX)
field("uint64", "ack", "Records received")
field("uint64", "claim.seq", "Seq")
field("uint8", "claim.flags", "Flags", base.HEX)
field("bool", "claim.only", "For this session only", 8, nil, 1)
field("bool", "claim.begun", "Begun at once", 8, nil, 2)
field("bytes", "session", "Session")
field("uint64", "received", "Records received")
field("uint64", "order", "Order")
field("uint64", "past", "Past")
field("uint64", "claim.held", "Held")
field("uint16", "reason", "Reason", base.DEC, names.reasons)
field("bytes", "datagram.data", "Datagram of the program")
field("ipv4", "address4", "Address")
field("ipv6", "address6", "Address")
field("uint16", "port", "Port")
field("uint8", "transport", "Transport", base.DEC, names.transports)
field("uint8", "address.size", "Size of the address")
field("bytes", "letter.id", "Meeting")
field("bytes", "letter.to", "Reader")
field("uint8", "letter.hops", "Hops")
field("bytes", "letter", "Letter (sealed)")
field("uint32", "circuit", "Circuit")
field("bool", "circuit.from", "Comes from the peer", 8, nil, 1)
field("bytes", "circuit.peer", "Other end")
field("bytes", "circuit.data", "Bytes of the circuit")
field("uint32", "circuit.credit", "Bytes granted")
field("uint16", "circuit.reason", "Reason", base.DEC, names.relay)
field("uint64", "echo.tag", "Tag", base.HEX)
field("uint16", "echo.port", "UDP port")
field("uint16", "echo.tcp", "TCP port")
field("bytes", "reach.nonce", "Nonce")
field("uint8", "reached.result", "Result", base.DEC, names.reached)
field("uint16", "reached.from", "From port")
field("uint16", "doors.tcp", "TCP port")
field("uint16", "doors.utp", "uTP port")
field("bool", "doors.mapped_tcp", "A router passes tcp on", 8, nil, 1)
field("bool", "doors.mapped_utp", "A router passes utp on", 8, nil, 2)
field("uint8", "gossip.kind", "Kind of gossip", base.DEC, names.gossip)
field("uint64", "gossip.position", "Position", base.HEX)
field("uint64", "gossip.seq", "Seq")
field("absolute_time", "gossip.clock", "Clock", base.UTC)
field("bytes", "gossip.nonce", "Nonce")
field("uint64", "gossip.first", "First", base.HEX)
field("uint64", "gossip.last", "Last", base.HEX)
field("uint8", "gossip.mode", "Mode", base.DEC, names.modes)
field("uint64", "gossip.sum", "Sum", base.HEX)
field("uint16", "record.size", "Size")
field("uint8", "record.version", "Version")
field("bytes", "record.peer", "Peer id")
field("uint64", "record.seq", "Seq, ms since 1970")
field("uint32", "record.life", "Life, s")
field("uint8", "record.role", "Role", base.DEC, names.roles)
field("uint8", "record.flags", "Flags", base.HEX)
field("bool", "record.relay", "Carries links of others", 8, nil, 1)
field("bool", "record.open", "Accepts whoever comes", 8, nil, 2)
field("uint8", "record.endpoints", "Endpoints")
field("bytes", "record.signature", "Signature")
field("bytes", "flight.nonce", "Nonce of the flight")
field("uint8", "flight.type", "Flight", base.DEC, names.flights)
field("uint64", "flight.id", "Handshake", base.HEX)
field("bytes", "flight.cookie", "Cookie")
field("uint16", "flight.noise_len", "Length of the Noise message")
field("uint16", "flight.pad_len", "Length of the padding")
field("bytes", "flight.noise", "Noise message")
field("bytes", "flight.padding", "Padding (masked)")
field("bytes", "sealed", "Sealed")
field("uint8", "cipher", "Cipher", base.DEC, names.ciphers)
field("uint8", "beacon.kind", "Beacon", base.DEC, names.beacon)
field("uint8", "beacon.flags", "Flags", base.HEX)
field("bool", "beacon.wants", "Answers are wanted", 8, nil, 1)
field("uint64", "beacon.time", "Time, ms since 1970")
field("bytes", "beacon.echo", "Hello that is answered")
field("uint8", "beacon.doors", "Doors")
field("uint16", "beacon.record_len", "Length of the record")
field("bytes", "beacon.signature", "Signature")
field("uint64", "datagram.cid", "CID", base.HEX)
field("uint64", "datagram.number", "Number")
field("uint8", "inner.type", "Frame inside", base.DEC, names.inner)
field("uint64", "inner.offset", "Offset")
field("bytes", "inner.data", "Bytes of the stream")
field("bytes", "inner.token", "Token")
field("uint64", "inner.largest", "Largest number")
field("uint64", "inner.delay", "Delay, us")
field("uint64", "inner.limit", "Limit")
crust.fields = all_fields

local e, all_experts = {}, {}
local function expert(abbr, text, group, severity)
  local p = ProtoExpert.new("crust.expert." .. abbr, text, group, severity)
  e[abbr] = p
  all_experts[#all_experts + 1] = p
end
expert("clear", "this conversation is in clear", expert_group or PI_SECURITY, PI_NOTE)
expert("magic", "no frame begins here, though one was due", PI_PROTOCOL, PI_ERROR)
expert("partial", "the capture begins in the middle of a frame", PI_SEQUENCE, PI_NOTE)
expert("bounds", "the header of the frame is out of bounds", PI_PROTOCOL, PI_ERROR)
expert("direction", "the direction in the flags is not that of the other frames", PI_PROTOCOL, PI_ERROR)
expert("gap", "this is not the next frame of its direction", PI_SEQUENCE, PI_WARN)
expert("trailer", "the trailer is not zero", PI_PROTOCOL, PI_ERROR)
expert("reserved", "bits that mean nothing are set", PI_PROTOCOL, PI_NOTE)
expert("late", "a message of the handshake after the handshake", PI_PROTOCOL, PI_ERROR)
expert("step", "no step of a handshake", PI_PROTOCOL, PI_ERROR)
expert("short", "this ends too early", PI_MALFORMED, PI_ERROR)
expert("twice", "a field comes twice", PI_PROTOCOL, PI_ERROR)
expert("record", "this frame must not be in a record of this type", PI_PROTOCOL, PI_ERROR)
expert("unknown", "a type that is not known, to be ignored", PI_UNDECODED, PI_NOTE)
expert("value", "a value that must not be", PI_PROTOCOL, PI_ERROR)
expert("piece", "a piece that does not go on from the last one", PI_PROTOCOL, PI_WARN)
expert("after", "nothing may come behind this frame", PI_PROTOCOL, PI_WARN)
expert("forged", "this does not open with the key of the key log", PI_DECRYPTION or PI_SECURITY, PI_ERROR)
expert("keyless", "the key log has no key of this link", PI_DECRYPTION or PI_SECURITY, PI_NOTE)
crust.experts = all_experts

crust.prefs.network = Pref.string("Network name", "", "The network whose first flights and beacons are unmasked")
crust.prefs.public = Pref.bool("The public network, too", false, "Unmask those of the network with the empty name")
crust.prefs.key_log = Pref.string("Key log", "", "The file that a service has written with Config.KeyLogFile, or crust peer --key-log")

-------------------------------------------------------------------------------
-- State, made anew for each capture. What is found out on the first pass is kept by
-- what does not change on the others.

local networks, keys, streams, records, associations, header_keys, whole, last_frame

-- id_of names a conversation. It needs no field of TCP: on a first pass without a tree there
-- are none.
local function id_of(pinfo)
  local a, b = tostring(pinfo.src) .. ":" .. pinfo.src_port, tostring(pinfo.dst) .. ":" .. pinfo.dst_port
  if a > b then a, b = b, a end
  return a .. "-" .. b
end

local function read_keys()
  keys = { stream = {}, datagram = {} }
  if crust.prefs.key_log == "" then return end
  local file = io.open(crust.prefs.key_log, "r")
  if not file then return end
  for line in file:lines() do
    local w = {}
    for x in line:gmatch("%S+") do w[#w + 1] = x end
    local good = #w == 8
    for i = 2, #w do good = good and w[i]:match("^%x+$") end
    if good and #w[5] == 64 and #w[6] == 64 and #w[3] == 64 then
      local k = {
        name = w[2], network = crypto.unhex(w[3]), cipher = tonumber(w[4]), split = { crypto.unhex(w[5]), crypto.unhex(w[6]) },
        hello = { crypto.unhex(w[7]), crypto.unhex(w[8]) },
      }
      if w[1] == "CRUST1_STREAM" then
        keys.stream[w[2]] = k
      elseif w[1] == "CRUST1_DATAGRAM" then
        keys.datagram[#keys.datagram + 1] = k
      end
    end
  end
  file:close()
end

local function binding_of(hello)
  local at = 1
  while at + 2 <= #hello do
    local tag, n = byte(hello, at), big(hello, at + 1, 2)
    if tag == 16 and n == 24 then return sub(hello, at + 3, at + 10), sub(hello, at + 11, at + 26) end
    at = at + 3 + n
  end
end

local function start()
  networks, streams, records, whole, last_frame = {}, {}, {}, {}, nil
  local function add(name)
    local root = crypto.keyed(rep("\0", 32), "libcrust/1 network\0" .. name)
    networks[#networks + 1] = { mask = crypto.keyed(root, "mask"), datagram = crypto.keyed(root, "datagram"), beacon = crypto.keyed(root, "beacon") }
  end
  if crust.prefs.network ~= "" then add(crust.prefs.network) end
  if crust.prefs.public then add("") end
  read_keys()
  associations, header_keys = {}, {}
  for _, k in ipairs(keys.datagram) do
    for side = 1, 2 do
      local cid, header = binding_of(k.hello[side])
      if cid then
        header_keys[header] = header_keys[header] or crypto.aes_key(header)
        associations[header .. cid] = { keys = k, from = 3 - side, chains = {} } -- datagrams to side
      end
    end
  end
end
crust.init = start

local function stream_of(id)
  local s = streams[id]
  if not s then
    s = { next = {}, pieces = {}, flights = {}, numbers = {} }
    streams[id] = s
  end
  return s
end

-------------------------------------------------------------------------------
-- Frames of records

-- reader walks through a range; need() is nil when it ends too early, which is told once.
local function reader(tvb, tree)
  local r = { at = 0, size = tvb:len(), tree = tree, tvb = tvb }
  function r:left() return self.size - self.at end
  function r:need(n)
    if self.failed then return nil end
    if self.at + n > self.size then
      self.failed = true
      self.tree:add_proto_expert_info(e.short)
      return nil
    end
    local range = n > 0 and self.tvb(self.at, n) or nil
    self.at = self.at + n
    return range or self.tvb
  end
  function r:add(abbr, n, tree2)
    local range = self:need(n)
    if not range then return nil end
    local item = (tree2 or self.tree):add(f[abbr], range)
    return range, item
  end
  function r:rest(abbr)
    if not self.failed and self:left() > 0 then return self:add(abbr, self:left()) end
  end
  return r
end

local function uvarint(tvb, at)
  local v, scale = 0, 1
  for i = 0, 9 do
    if at + i >= tvb:len() then return nil end
    local b = tvb(at + i, 1):uint()
    v = v + (b % 128) * scale
    if b < 128 then return v, i + 1 end
    scale = scale * 128
  end
end

local function show_hello(tvb, tree)
  local r, seen, peer = reader(tvb, tree), {}, nil
  while r:left() > 0 and not r.failed do
    local from = r.at
    if r:left() < 3 then r:need(3) return peer end
    local tag, n = tvb(r.at, 1):uint(), tvb(r.at + 1, 2):uint()
    local item = tree:add(crust, tvb(from, math.min(3 + n, r:left())), (names.fields[tag] or "field " .. tag))
    local s = reader(tvb(from):tvb(), item)
    s:add("hello.tag", 1)
    s:add("hello.len", 2)
    if seen[tag] then item:add_proto_expert_info(e.twice) end
    seen[tag] = true
    local want = ({ 1, 32, false, 1, 8, 1, 4, 4, 4, 1, [16] = 24 })[tag]
    if want and n ~= want then item:add_proto_expert_info(e.value) end
    if s:left() < n then s:need(n) return peer end
    local abbr = want ~= nil and n > 0 and ({ "hello.version", "hello.peer", "hello.app_id", "hello.role", "hello.instance", "hello.ciphers", "hello.lost_after", "hello.resume", "hello.unacked", "hello.flags" })[tag]
    if abbr and (not want or n == want) then
      local range = s:add(abbr, n)
      if tag == 2 then
        peer = crypto.hex(range:raw())
        item:append_text(": " .. peer:sub(1, 8))
      elseif tag == 6 then
        item:add(f["hello.ciphers.chacha"], range)
        item:add(f["hello.ciphers.aes"], range)
      elseif tag == 10 then
        for _, x in ipairs({ "relay", "gossip", "news", "ready" }) do item:add(f["hello.flags." .. x], range) end
      end
    elseif tag == 16 and n == 24 then
      s:add("hello.cid", 8)
      s:add("hello.header_key", 16)
    elseif n > 0 then
      s:add("hello.value", n)
    end
    r.at = from + 3 + n
  end
  return peer
end

-- An address whose size is given, and its port.
local function show_address(r, size, tree)
  if size ~= 4 and size ~= 16 then
    (tree or r.tree):add_proto_expert_info(e.value)
    r:need(size)
  else
    r:add(size == 4 and "address4" or "address6", size, tree)
  end
end

local function show_endpoint(r)
  if r:left() < 2 then return r:need(2) end
  local size = r.tvb(r.at + 1, 1):uint()
  local item = r.tree:add(crust, r.tvb(r.at, math.min(4 + size, r:left())), "Endpoint")
  r:add("transport", 1, item)
  r:add("address.size", 1, item)
  show_address(r, size, item)
  r:add("port", 2, item)
end

local function show_record(r, size)
  local range = r:need(size)
  if not range or size == 0 then return end
  local item = r.tree:add(crust, range, "Contact record")
  local s = reader(range:tvb(), item)
  s:add("record.version", 1)
  local peer = s:add("record.peer", 32)
  if peer then item:append_text(" of " .. crypto.hex(peer:raw(0, 4))) end
  s:add("record.seq", 8)
  s:add("record.life", 4)
  s:add("record.role", 1)
  local flags = s:add("record.flags", 1)
  if flags then
    item:add(f["record.relay"], flags)
    item:add(f["record.open"], flags)
  end
  local n = s:add("record.endpoints", 1)
  for _ = 1, n and n:uint() or 0 do
    if not s.failed then show_endpoint(s) end
  end
  if not s.failed and s:left() > 64 then
    show_hello(s:need(s:left() - 64):tvb(), item)
  end
  s:add("record.signature", 64)
end

local function show_keys(r, n)
  local i = 0
  while not r.failed and (n and i < n or not n and r:left() > 0) do
    local item = r.tree:add(crust, r.tvb(r.at, math.min(14, r:left())), "Key")
    r:add("gossip.position", 8, item)
    r:add("gossip.seq", 6, item)
    i = i + 1
  end
  return i
end

local function show_gossip(r)
  local kind = r:add("gossip.kind", 1)
  kind = kind and kind:uint()
  local text = names.gossip[kind] or "unknown"
  if kind == 1 or kind == 6 then
    local n = 0
    while not r.failed and r:left() > 0 do
      local size = r:add("record.size", 2)
      if size then show_record(r, size:uint()) n = n + 1 end
    end
    return text .. ", " .. n
  elseif kind == 2 or kind == 4 or kind == 5 then
    return text .. ", " .. show_keys(r)
  elseif kind == 3 then
    local clock = r:need(8)
    if clock then
      local ms = clock:uint64()
      r.tree:add(f["gossip.clock"], clock, NSTime.new((ms / 1000):tonumber(), (ms % 1000):tonumber() * 1000000))
    end
    r:add("gossip.nonce", 16)
    r:add("gossip.first", 8)
    while not r.failed and r:left() > 0 do
      r:add("gossip.last", 8)
      local mode = r:add("gossip.mode", 1)
      mode = mode and mode:uint()
      if mode == 1 then
        r:add("gossip.sum", 8)
      elseif mode == 2 then
        local n = r:need(1)
        if n then show_keys(r, n:uint()) end
      elseif mode and mode > 2 then
        r.tree:add_proto_expert_info(e.value)
        return text
      end
    end
    return text
  end
  r:rest("frame.body")
  return text
end

local function number64(range) return tostring(range:uint64()) end

-- Each returns what the info column says, and whether nothing may follow.
local show = {
  [0] = function(r) r:rest("frame.body") return "" end,
  function(r)
    local p = r:add("message.priority", 1)
    local n = r:left()
    r:rest("message.data")
    return p and string.format("%d bytes, priority %d", n, p:uint()) or ""
  end,
  function(r) r:add("ping", 8) return "" end,
  function(r) r:add("ping", 8) return "" end,
  function(r)
    local seq = r:add("claim.seq", 8)
    local flags, item = r:add("claim.flags", 1)
    if flags then
      item:add(f["claim.only"], flags)
      item:add(f["claim.begun"], flags)
    end
    r:add("session", 16)
    r:add("received", 8)
    r:add("past", 8)
    while not r.failed and r:left() > 0 do r:add("claim.held", 8) end
    return seq and number64(seq) or "", true
  end,
  function(r)
    local id = r:add("session", 16)
    r:add("received", 8)
    r:add("order", 8)
    r:add("past", 8)
    return id and crypto.hex(id:raw(0, 4)) or "", true
  end,
  function(r) local x = r:add("reason", 2) return x and (names.reasons[x:uint()] or "other") or "", true end,
  function(r) local x = r:add("reason", 2) return x and (names.reasons[x:uint()] or "other") or "", true end,
  function(r) local x = r:add("ack", 8) return x and number64(x) or "" end,
  function(r) local n = r:left() r:rest("datagram.data") return n .. " bytes" end,
  function(r)
    show_address(r, r:left() - 2)
    r:add("port", 2)
    return ""
  end,
  function(r)
    r:add("letter.id", 16)
    r:add("letter.to", 32)
    r:add("letter.hops", 1)
    r:rest("letter")
    return ""
  end,
  function(r) r:add("letter.id", 16) r:rest("letter") return "" end,
  function(r)
    local id = r:add("circuit", 4)
    r:add("circuit.from", 1)
    r:add("circuit.peer", 32)
    return id and tostring(id:uint()) or ""
  end,
  function(r)
    local id = r:add("circuit", 4)
    local n = r:left()
    r:rest("circuit.data")
    return id and string.format("%d, %d bytes", id:uint(), n) or ""
  end,
  function(r)
    local id = r:add("circuit", 4)
    r:add("circuit.credit", 4)
    return id and tostring(id:uint()) or ""
  end,
  function(r)
    local id = r:add("circuit", 4)
    r:add("circuit.reason", 2)
    return id and tostring(id:uint()) or ""
  end,
  [20] = function(r) r:add("echo.tag", 8) r:add("echo.port", 2) if r:left() >= 2 then r:add("echo.tcp", 2) end return "" end,
  [21] = function(r) r:add("reach.nonce", 16) r:add("transport", 1) r:add("port", 2) return "" end,
  [22] = function(r)
    r:add("reach.nonce", 16)
    r:add("reached.result", 1)
    r:add("reached.from", 2)
    if not r.failed and r:left() > 0 then show_address(r, r:left()) end
    return ""
  end,
  [24] = show_gossip,
  [26] = function(r)
    r:add("doors.tcp", 2)
    r:add("doors.utp", 2)
    local flags = r:need(1)
    if flags then
      r.tree:add(f["doors.mapped_tcp"], flags)
      r.tree:add(f["doors.mapped_utp"], flags)
    end
    return ""
  end,
}
local in_content = { [0] = true, [1] = true, [7] = true }

local function show_frames(tvb, tree, record, texts)
  local at, closed = 0, false
  while at < tvb:len() do
    local kind = tvb(at, 1):uint()
    local n, used = uvarint(tvb, at + 1)
    local title = names.frames[kind] or "Frame " .. kind
    if not n or at + 1 + used + n > tvb:len() then
      local item = tree:add(crust, tvb(at), title)
      item:add(f["frame.type"], tvb(at, 1))
      item:add_proto_expert_info(e.short)
      texts[#texts + 1] = title .. "?"
      return
    end
    local item = tree:add(crust, tvb(at, 1 + used + n), title)
    item:add(f["frame.type"], tvb(at, 1))
    item:add(f["frame.len"], tvb(at + 1, used), UInt64.new(n % 0x100000000, floor(n / 0x100000000) % 0x100000000))
    if closed then item:add_proto_expert_info(e.after) end
    if not names.frames[kind] then
      item:add_proto_expert_info(e.unknown)
    elseif (record == 1) ~= (in_content[kind] or false) and kind ~= 0 then
      item:add_proto_expert_info(e.record)
    end
    local text = ""
    if n > 0 then
      local r = reader(tvb(at + 1 + used, n):tvb(), item)
      local done
      if show[kind] then text, done = show[kind](r) else r:rest("frame.body") end
      closed = closed or done
    elseif kind ~= 0 and kind ~= 9 and show[kind] then
      item:add_proto_expert_info(e.short)
    end
    if kind ~= 0 then texts[#texts + 1] = title .. (text ~= "" and " " .. text or "") end
    if text ~= "" then item:append_text(": " .. text) end
    at = at + 1 + used + n
  end
end

-- show_piece keeps the pieces of a message together.
local function show_piece(tvb, tree, h, s, dir, key, first_pass, texts)
  tree:add(f["piece.data"], tvb())
  if first_pass then
    local slot = dir .. ":" .. h.priority
    local open = s.pieces[slot]
    if open and h.left == open.left then
      open.parts[#open.parts + 1] = tvb():raw()
      open.left = open.left - h.len
    else
      whole[key] = { broken = open ~= nil or nil }
      open = { parts = { tvb():raw() }, left = h.left - h.len }
    end
    whole[key] = whole[key] or {}
    if open.left == 0 then
      whole[key].message = table.concat(open.parts)
      whole[key].maybe = s.from ~= nil and s.from[dir] ~= "0" -- its beginning may be missing
      open = nil
    end
    s.pieces[slot] = open
  end
  local w = whole[key] or {}
  if w.broken then tree:add_proto_expert_info(e.piece) end
  texts[#texts + 1] = string.format("Piece of %d bytes, %d left, priority %d", h.len, h.left - h.len, h.priority)
  if w.message then
    local t = ByteArray.new(crypto.hex(w.message)):tvb("Message")
    tree:add(f["message.size"], t(), UInt64.new(#w.message))
    tree:add(f["message.data"], t())
    texts[#texts] = texts[#texts] .. string.format(", the last of %d bytes%s", #w.message, w.maybe and " captured" or "")
  end
end

local function show_info(pinfo, texts)
  if #texts == 0 then return end
  pinfo.cols.protocol = "CRUST"
  local text = table.concat(texts, " | ", 1, math.min(#texts, 8)) .. (#texts > 8 and " | ..." or "")
  if last_frame == pinfo.number then
    pinfo.cols.info:append(" | " .. text)
  else
    pinfo.cols.info:set(text)
    pinfo.cols.info:fence()
  end
  last_frame = pinfo.number
end

-------------------------------------------------------------------------------
-- Tracer links

local MAGIC = "cru1"
local HEAD, TAG, MOST = 24, 16, 65519

-- head_at reads the header of a frame, or says what is wrong.
local function head_at(tvb, at)
  local h = {
    type = tvb(at + 4, 1):uint(), flags = tvb(at + 5, 1):uint(), priority = tvb(at + 6, 1):uint(), zero = tvb(at + 7, 1):uint(),
    len = tvb(at + 8, 4):uint(), left = tvb(at + 12, 4):uint(),
  }
  if h.type > 3 or h.len > MOST or h.left > 2097152 or h.type == 0 and (h.len == 0 or h.len > 1024) then
    h.bad = true
  elseif h.type ~= 2 then
    h.bad = h.left > 0 or h.priority > 0
  else
    h.bad = h.len == 0 or h.left < h.len
  end
  return h
end

local function show_shake(tvb, tree, texts, s)
  local r = reader(tvb, tree)
  local step = r:add("shake.step", 1)
  step = step and step:uint()
  if not step or step < 1 or step > 3 then
    tree:add_proto_expert_info(e.step)
    return r:rest("frame.body")
  end
  if step < 3 then r:add("shake.nonce", 32) end
  local n = r:add("shake.len", 2)
  local text = names.steps[step]
  if n and n:uint() > 0 then
    local payload = r:need(n:uint())
    if payload then
      local peer = show_hello(payload:tvb(), tree:add(crust, payload, step == 1 and "Offer" or "Hello"))
      if peer then text = text .. ", " .. peer:sub(1, 8) end
    end
  end
  r:add(step == 1 and "shake.proof" or "shake.signature", step == 1 and 32 or 64)
  if not r.failed and r:left() > 0 then
    tree:add_proto_expert_info(e.value)
    r:rest("frame.body")
  end
  texts[#texts + 1] = "Handshake " .. step .. ": " .. text
end

-- find_magic returns where the next frame may begin, and whether one does for certain.
local function find_magic(tvb, from)
  local raw = tvb(from):raw()
  local at = raw:find(MAGIC, 1, true)
  while at do
    local here = from + at - 1
    if here + HEAD > tvb:len() or not head_at(tvb, here).bad then return here end
    at = raw:find(MAGIC, at + 1, true)
  end
end

local function tracer_frame(tvb, at, pinfo, tree, s, texts)
  local h = head_at(tvb, at)
  local number = tvb(at + 16, 8)
  local dir = band(h.flags, 1)
  local item = tree:add(crust, tvb(at, HEAD + h.len + TAG), string.format("libcrust, in clear: %s #%s, from who %s", names.types[h.type], number64(number), dir == 1 and "dialled" or "accepted"))
  local key = table.concat({ "t", s.id, dir, number64(number), pinfo.number, at }, ":")
  item:add(f.kind, tvb(at, HEAD), 1):set_generated()
  item:add(f.clear, tvb(at, HEAD), true):set_generated()
  item:add(f.magic, tvb(at, 4))
  item:add(f.type, tvb(at + 4, 1))
  item:add(f.flags, tvb(at + 5, 1)):add(f["flags.dialer"], tvb(at + 5, 1))
  item:add(f.priority, tvb(at + 6, 1))
  item:add(f.zero, tvb(at + 7, 1))
  item:add(f.len, tvb(at + 8, 4))
  item:add(f.left, tvb(at + 12, 4))
  item:add(f.number, number)
  if h.flags > 1 or h.zero > 0 then item:add_proto_expert_info(e.reserved) end
  if not pinfo.visited then
    local from = tostring(pinfo.src) .. ":" .. pinfo.src_port
    if h.type == 0 and number64(number) == "0" and dir == 1 then -- the ports are used anew
      s.next, s.sender, s.over, s.pieces = {}, nil, nil, {}
    end
    local notes, due = {}, s.next[dir]
    if due and number64(number) ~= tostring(due) then notes[#notes + 1] = "gap" end
    s.from = s.from or {}
    if s.from[dir] == nil then s.from[dir] = number64(number) end -- the first that was captured
    s.next[dir] = number:uint64() + 1
    if s.sender and s.sender[dir] and s.sender[dir] ~= from then notes[#notes + 1] = "direction" end
    s.sender = s.sender or {}
    s.sender[dir] = s.sender[dir] or from
    s.over = s.over or {}
    if h.type == 0 and s.over[dir] then notes[#notes + 1] = "late" end
    s.over[dir] = s.over[dir] or h.type ~= 0
    records[key] = notes
  end
  for _, n in ipairs(records[key] or {}) do item:add_proto_expert_info(e[n]) end
  if h.type == 0 then item:add_proto_expert_info(e.clear) end
  if h.len > 0 then
    local body = tvb(at + HEAD, h.len):tvb()
    if h.type == 0 then
      show_shake(body, item, texts, s)
    elseif h.type == 2 then
      show_piece(body, item, h, s, dir, key, not pinfo.visited, texts)
    else
      show_frames(body, item, h.type, texts)
    end
  end
  local trailer = tvb(at + HEAD + h.len, TAG)
  local t = item:add(f.trailer, trailer)
  if trailer:raw() ~= rep("\0", TAG) then t:add_proto_expert_info(e.trailer) end
  return HEAD + h.len + TAG
end

local function more(pinfo, at, n)
  pinfo.desegment_offset = at
  pinfo.desegment_len = n
end

local function tracer(tvb, pinfo, tree, s)
  local at, texts = 0, {}
  while at < tvb:len() do
    local left = tvb:len() - at
    local begins = left >= 4 and tvb(at, 4):raw() == MAGIC or left < 4 and MAGIC:sub(1, left) == tvb(at, left):raw()
    if begins and left < HEAD then
      more(pinfo, at, DESEGMENT_ONE_MORE_SEGMENT)
      break
    end
    local h = begins and head_at(tvb, at)
    if begins and not h.bad then
      local need = HEAD + h.len + TAG
      if left < need then
        more(pinfo, at, need - left)
        break
      end
      at = at + tracer_frame(tvb, at, pinfo, tree, s, texts)
      s.synced = true
    else
      local found = find_magic(tvb, at + (begins and 1 or 0))
      local upto = found or tvb:len()
      local item = tree:add(f.partial, tvb(at, upto - at))
      if h and h.bad then
        item:add_proto_expert_info(e.bounds)
      elseif s.synced then
        item:add_proto_expert_info(e.magic)
      else
        item:add_proto_expert_info(e.partial)
      end
      texts[#texts + 1] = (upto - at) .. " bytes of no frame"
      at = upto
    end
  end
  show_info(pinfo, texts)
end

-------------------------------------------------------------------------------
-- Secure TCP

-- half is one direction of a link: numbers go on in the order in which records come.
local function new_half(k, side)
  local key = k.split[side]
  if k.cipher == 2 then key = crypto.keyed(key, "libcrust/1 AES-256-GCM") end
  return { n = 0, key = key, cipher = k.cipher, aes = k.cipher == 2 and crypto.aes_key(key) or nil }
end

local function nonce_of(cipher, n)
  local low, high = n % 0x100000000, floor(n / 0x100000000)
  if cipher == 2 then return "\0\0\0\0" .. big_bytes(high) .. big_bytes(low) end
  return "\0\0\0\0" .. bytes_of(low) .. bytes_of(high)
end

local function open_next(d, sealed)
  if d.n > 0 and d.n % 65536 == 0 then -- the key changes
    local zeros = rep("\0", 32)
    if d.cipher == 2 then
      d.key = crypto.gcm_text(d.aes, rep("\0", 4) .. rep("\255", 8), zeros .. rep("\0", 16))
      d.aes = crypto.aes_key(d.key)
    else
      d.key = crypto.chacha20(d.key, rep("\0", 4) .. rep("\255", 8), 1, zeros)
    end
  end
  local nonce = nonce_of(d.cipher, d.n)
  d.n = d.n + 1
  if d.cipher == 2 then return crypto.gcm_text(d.aes, nonce, sealed) end
  return crypto.chacha_open(d.key, nonce, sealed, "")
end

local function record_head(plain)
  if not plain or #plain < 8 then return nil end
  local h = { type = byte(plain, 1), priority = byte(plain, 2), len = big(plain, 3, 2), left = big(plain, 5, 4) }
  if h.type < 1 or h.type > 3 or h.len > MOST or h.left > 2097152 then return nil end
  if h.type ~= 2 and (h.priority > 0 or h.left > 0) or h.type == 2 and (h.len == 0 or h.left < h.len) then return nil end
  return h
end

local function tvb_of(raw, title) return ByteArray.new(crypto.hex(raw)):tvb(title) end

-- flight shows one masked flight; it returns its size, nil when more must come, and false
-- when it is none.
local function flight(tvb, at, tree, mask, title)
  local left = tvb:len() - at
  if left < 28 then return nil end
  local nonce = tvb(at, 24):raw()
  local head = crypto.xchacha20(mask, nonce, 0, tvb(at + 24, 4):raw())
  local noise, pad = big(head, 1, 2), big(head, 3, 2)
  if noise < 1 or noise > 1024 or pad > 1024 then return false end
  local size = 28 + noise + pad
  if left < size then return nil, size - left end
  if tree then
    local item = tree:add(crust, tvb(at, size), "libcrust, secure TCP: " .. title)
    item:add(f.kind, tvb(at, 24), 2):set_generated()
    item:add(f.clear, tvb(at, 24), false):set_generated()
    item:add(f["flight.nonce"], tvb(at, 24))
    local text = tvb_of(crypto.xchacha20(mask, nonce, 0, tvb(at + 24, 4 + noise):raw()), "Unmasked flight")
    item:add(f["flight.noise_len"], text(0, 2))
    item:add(f["flight.pad_len"], text(2, 2))
    item:add(f["flight.noise"], text(4, noise))
    if pad > 0 then item:add(f["flight.padding"], tvb(at + 28 + noise, pad)) end
    return size, item
  end
  return size, noise
end

-- secure_of finds out whether a stream begins with a first flight.
local function secure_of(tvb)
  if tvb:len() < 28 then return nil end
  local k = keys.stream[crypto.hex(tvb(0, 24):raw())]
  if k then return k.network, k end
  for _, n in ipairs(networks) do
    local size, noise = flight(tvb, 0, nil, n.mask)
    if size and size == tvb:len() and noise >= 48 and noise <= 128 then return n.mask end
  end
end

local function secure_record(tvb, at, pinfo, tree, s, side, texts)
  local d = s.halves[side]
  local left = tvb:len() - at
  if left < HEAD then return nil, DESEGMENT_ONE_MORE_SEGMENT end
  local key = table.concat({ "s", s.id, side, crypto.hex(tvb(at, HEAD):raw()) }, ":")
  local r = records[key]
  if not r then
    if d.broken then return false end
    r = { n = d.n / 2, head = open_next(d, tvb(at, HEAD):raw()) }
    r.h = record_head(r.head)
    if not r.h then
      d.broken = true
      r.bad = true
    end
    records[key] = r
  end
  if r.bad then
    local item = tree:add(f.sealed, tvb(at))
    item:add_proto_expert_info(e.forged)
    texts[#texts + 1] = "a record that does not open"
    return false
  end
  local need = HEAD + r.h.len + TAG
  if left < need then return nil, need - left end
  if not r.body then
    r.body = open_next(d, tvb(at + HEAD, r.h.len + TAG):raw())
    if not r.body then
      d.broken, r.bad = true, true
      return false
    end
  end
  local item = tree:add(crust, tvb(at, need), string.format("libcrust, secure TCP: %s #%d, from the %s", names.types[r.h.type], r.n, side == 1 and "initiator" or "responder"))
  item:add(f.kind, tvb(at, HEAD), 2):set_generated()
  item:add(f.clear, tvb(at, HEAD), false):set_generated()
  local t = tvb_of(r.head .. r.body, "Decrypted record")
  item:add(f.type, t(0, 1))
  item:add(f.priority, t(1, 1))
  item:add(f.len, t(2, 2))
  item:add(f.left, t(4, 4))
  item:add(f.number, t(0, 8), UInt64.new(r.n)):set_generated()
  if r.h.len > 0 then
    local body = t(8, r.h.len):tvb()
    if r.h.type == 2 then
      local first = not r.seen
      r.seen = true
      show_piece(body, item, r.h, s, side, key, first, texts)
    else
      show_frames(body, item, r.h.type, texts)
    end
  end
  return need
end

local function secure(tvb, pinfo, tree, s)
  local from = tostring(pinfo.src) .. ":" .. pinfo.src_port
  local side, at, texts = s.sides[from] or 2, 0, {}
  while at < tvb:len() do
    local left = tvb:len() - at
    local id = side .. ":" .. (left >= 24 and crypto.hex(tvb(at, 24):raw()) or "")
    local done = s.done[side]
    local turn = s.flights[id] or (done < (side == 1 and 2 or 1) and left >= 24)
    if done < (side == 1 and 2 or 1) and left < 28 and not s.flights[id] then
      more(pinfo, at, DESEGMENT_ONE_MORE_SEGMENT)
      break
    end
    if turn then
      local index = s.flights[id] or done + 1
      local title = side == 2 and "flight 2" or index == 1 and "flight 1" or "flight 3"
      local size, item = flight(tvb, at, tree, s.mask, title)
      if size == nil then
        more(pinfo, at, item or DESEGMENT_ONE_MORE_SEGMENT)
        break
      elseif not size then
        tree:add(f.sealed, tvb(at)):add_proto_expert_info(e.forged)
        break
      end
      if not s.flights[id] then
        s.flights[id] = index
        s.done[side] = done + 1
      end
      local text = title
      if s.keys then
        item:add(f.cipher, tvb(at, 24), s.keys.cipher):set_generated()
        local hello = title ~= "flight 1" and s.keys.hello[side]
        if hello and #hello > 0 then
          local t = tvb_of(hello, "Hello")
          local peer = show_hello(t, item:add(crust, t(), "Hello, as the key log has it"))
          if peer then text = text .. ", hello of " .. peer:sub(1, 8) end
        end
      end
      texts[#texts + 1] = text
      at = at + size
    elseif s.halves then
      local used, n = secure_record(tvb, at, pinfo, tree, s, side, texts)
      if used == nil then
        more(pinfo, at, n)
        break
      elseif not used then
        break
      end
      at = at + used
    else
      local item = tree:add(f.sealed, tvb(at))
      item:add_proto_expert_info(e.keyless)
      tree:add(f.kind, tvb(at, 1), 2):set_generated()
      texts[#texts + 1] = left .. " bytes, sealed"
      at = tvb:len()
    end
  end
  show_info(pinfo, texts)
end

function crust.dissector(tvb, pinfo, tree)
  local s = streams[id_of(pinfo)]
  if tvb:len() == 0 or not s or not s.kind then return 0 end
  pinfo.cols.protocol = "CRUST"
  if s.kind == "tracer" then
    tracer(tvb, pinfo, tree, s)
  else
    secure(tvb, pinfo, tree, s)
  end
  return tvb:len()
end

local function heuristic_tcp(tvb, pinfo, tree)
  local id = id_of(pinfo)
  if tvb:len() < 4 then return false end
  local s = stream_of(id)
  s.id = id
  if not s.kind then
    local first = not s.tried
    s.tried = true
    local here = find_magic(tvb, 0)
    if here and (here == 0 or here + HEAD <= tvb:len()) then
      s.kind = "tracer"
    elseif first then
      local mask, k = secure_of(tvb)
      if mask then
        s.kind, s.mask, s.keys, s.done = "secure", mask, k, { 0, 0 }
        s.sides = { [tostring(pinfo.src) .. ":" .. pinfo.src_port] = 1 }
        s.halves = k and { new_half(k, 1), new_half(k, 2) } or nil
      end
    end
  end
  if not s.kind then return false end
  pinfo.conversation = crust
  crust.dissector(tvb, pinfo, tree)
  return true
end
crust:register_heuristic("tcp", heuristic_tcp)

-------------------------------------------------------------------------------
-- Datagrams: beacons, the flights of handshakes, and what is sealed

local function head_of(tvb, tree, kind, title)
  local item = tree:add(crust, tvb(), "libcrust, " .. title)
  item:add(f.kind, tvb(), kind):set_generated()
  item:add(f.clear, tvb(), false):set_generated()
  return item
end

local function show_beacon(tvb, tree, plain)
  local item = head_of(tvb, tree, 4, "beacon")
  item:add(f["flight.nonce"], tvb(0, 24))
  local t = tvb_of(plain, "Decrypted beacon")
  local r = reader(t, item)
  local kind = r:add("beacon.kind", 1)
  local flags = r:add("beacon.flags", 1)
  if flags then item:add(f["beacon.wants"], flags) end
  r:add("beacon.time", 8)
  r:add("beacon.echo", 16)
  local size = r:add("address.size", 1)
  if size then show_address(r, size:uint()) end
  local n = r:add("beacon.doors", 1)
  for _ = 1, n and n:uint() or 0 do
    r:add("transport", 1)
    r:add("port", 2)
  end
  local length = r:add("beacon.record_len", 2)
  if length and length:uint() > 0 then
    show_record(r, length:uint())
    r:add("beacon.signature", 64)
  end
  return "Beacon: " .. (kind and names.beacon[kind:uint()] or "unknown")
end

local function show_flight(tvb, tree, plain)
  local item = head_of(tvb, tree, 3, "handshake in datagrams")
  item:add(f["flight.nonce"], tvb(0, 24))
  local r = reader(tvb_of(plain, "Decrypted flight"), item)
  local kind = r:add("flight.type", 1)
  local id = r:add("flight.id", 8)
  r:add("flight.cookie", 16)
  local n = r:add("flight.noise_len", 2)
  if n and n:uint() > 0 then r:add("flight.noise", n:uint()) end
  local text = "Datagram " .. (kind and names.flights[kind:uint()] or "flight")
  for _, k in ipairs(keys.datagram) do
    if id and kind and k.name == crypto.hex(id:raw()) and (kind:uint() == 2 or kind:uint() == 3) then
      local hello = tvb_of(k.hello[kind:uint() == 2 and 2 or 1], "Hello")
      local peer = show_hello(hello, item:add(crust, hello(), "Hello, as the key log has it"))
      if peer then text = text .. ", hello of " .. peer:sub(1, 8) end
    end
  end
  return text
end

-- datagram_key returns the key of an epoch of a direction.
local function datagram_key(a, epoch)
  if epoch > 1024 then return nil end
  local k = a.keys
  a.chains[0] = a.chains[0] or crypto.keyed(k.split[a.from], "libcrust/1 datagrams " .. names.ciphers[k.cipher])
  for i = 1, epoch do a.chains[i] = a.chains[i] or crypto.keyed(a.chains[i - 1], "next") end
  return crypto.keyed(a.chains[epoch], "key")
end

local function show_inner(r, texts)
  while r:left() > 0 and not r.failed do
    local kind = r.tvb(r.at, 1):uint()
    local item = r.tree:add(crust, r.tvb(r.at), names.inner[kind] or "Frame " .. kind)
    texts[#texts + 1] = names.inner[kind] or "?"
    local from = r.at
    r:add("inner.type", 1, item)
    local function var(abbr)
      local v, n = uvarint(r.tvb, r.at)
      if not v then
        r:need(r:left() + 1)
        return nil
      end
      if abbr then item:add(f[abbr], r.tvb(r.at, n), UInt64.new(v % 0x100000000, floor(v / 0x100000000) % 0x100000000)) end
      r.at = r.at + n
      return v
    end
    if kind == 0 then
      r.at = r.size
    elseif kind == 2 then
      var("inner.largest"); var("inner.delay"); var("inner.limit")
      local more_ranges = r:need(1)
      var()
      for _ = 1, more_ranges and more_ranges:uint() or 0 do var(); var() end
    elseif kind == 3 then
      var("inner.offset")
      if r:left() > 0 then r:add("inner.data", r:left(), item) end
    elseif kind == 4 then
      local n = var("frame.len")
      if n and n > 0 then r:add("datagram.data", n, item) end
    elseif kind == 5 or kind == 6 then
      r:add("inner.token", 8, item)
    elseif kind == 7 then
      r:add("reason", 2, item)
      r.at = r.size
    elseif kind ~= 1 then
      item:add_proto_expert_info(e.value)
      r.at = r.size
    end
    item:set_len(math.max(1, r.at - from))
  end
end

local function sealed_datagram(tvb, tree)
  local block = tvb(0, 16):raw()
  for header, k in pairs(header_keys) do
    local open = crypto.aes_unblock(k, block)
    local a = associations[header .. sub(open, 1, 8)]
    if a then
      local high, low = big(open, 9, 4), big(open, 13, 4)
      local number = high * 0x100000000 + low
      local key = high < 0x100000 and datagram_key(a, floor(number / 4194304)) or nil
      local nonce, sealed, plain = nonce_of(a.keys.cipher, number), tvb(16):raw(), nil
      if key and a.keys.cipher == 2 then
        plain = crypto.gcm_text(crypto.aes_key(key), nonce, sealed)
      elseif key then
        plain = crypto.chacha_open(key, nonce, sealed, block)
      end
      local item = head_of(tvb, tree, 3, string.format("sealed datagram #%.0f, from the %s", number, a.from == 1 and "initiator" or "responder"))
      item:add(f.cipher, tvb(0, 16), a.keys.cipher):set_generated()
      item:add(f["datagram.cid"], tvb(0, 16), UInt64.new(big(open, 5, 4), big(open, 1, 4))):set_generated()
      item:add(f["datagram.number"], tvb(0, 16), UInt64.new(low, high)):set_generated()
      local texts = {}
      if not plain then
        item:add_proto_expert_info(e.forged)
        return "a datagram that does not open"
      elseif #plain > 0 then
        show_inner(reader(tvb_of(plain, "Decrypted datagram"), item), texts)
      end
      return string.format("Datagram %.0f: %s", number, table.concat(texts, ", "))
    end
  end
end

local function heuristic_udp(tvb, pinfo, tree)
  local n, text = tvb:len(), nil
  if n >= 32 and next(header_keys) then text = sealed_datagram(tvb, tree) end
  if not text and n >= 67 and n <= 1200 then
    local nonce, rest = tvb(0, 24):raw(), nil
    for _, net in ipairs(networks) do
      rest = rest or tvb(24):raw()
      local plain = n >= 640 and n <= 800 and crypto.xchacha_open(net.beacon, nonce, rest)
      if plain and #plain >= 28 then
        text = show_beacon(tvb, tree, plain)
        break
      end
      plain = crypto.xchacha_open(net.datagram, nonce, rest)
      if plain and #plain >= 27 then
        text = show_flight(tvb, tree, plain)
        break
      end
    end
  end
  if not text then return false end
  show_info(pinfo, { text })
  return true
end
crust:register_heuristic("udp", heuristic_udp)
