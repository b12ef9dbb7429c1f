/*
 * crust.hpp - crust.h for C++17: handles that free themselves, errors as
 * exceptions, events as ranges, callbacks as std::function. Header only; it needs
 * crust.h and the standard library.
 *
 * What a function does, its bounds, and which thread may call it, is said in
 * crust.h at the function of that name. What fails there throws crust::error here,
 * with the code and the sentence of crust_last_error. try_send tells by its result
 * that the queue is full, and poll that the service has stopped.
 *
 * HANDLES. config, batch and service own what they stand for: they can be moved and
 * not copied, and free it. service_ref is a service that somebody else owns, and
 * can be copied; handlers get one. Both have handle(), for all that crust.h has and
 * this file does not.
 *
 * VIEWS. An event, and every bytes_view and string_view that it gives, is valid
 * until the batch that holds it is gone, or its handler returns.
 *
 * HANDLERS run on threads of the library. No exception leaves them: the first one
 * that a handler of events throws is kept, closes the service, and no event is given
 * to it any more; service::rethrow throws it again. A gate that throws refuses the peer.
 * A service must not be destroyed inside its own handler; close it there instead.
 */
#ifndef CRUST_HPP
#define CRUST_HPP

#include <crust.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace crust {

/* ---- errors ---------------------------------------------------------------- */

/* What a call of crust.h has returned, below 0, and one sentence that says why. */
class error : public std::runtime_error {
public:
    error(crust_result code, const std::string &what) : std::runtime_error(what), code_(code) {}
    /* CRUST_ERR_* */
    crust_result code() const noexcept { return code_; }
    /* "would_block" */
    const char *name() const noexcept { return crust_error_name(code_); }

private:
    crust_result code_;
};

/* Throws what a call has returned when it is below 0, and else gives it back. */
inline crust_result check(crust_result result) {
    if (result < 0) {
        const char *text = crust_last_error();
        throw error(result, *text != '\0' ? text : crust_strerror(result));
    }
    return result;
}

/* ---- times and bytes ----------------------------------------------------------- */

using milliseconds = std::chrono::milliseconds;
/* Waits until something happens. */
inline constexpr milliseconds forever{-1};

namespace detail {
inline std::int32_t wait(milliseconds time) noexcept {
    constexpr milliseconds::rep most = std::numeric_limits<std::int32_t>::max();
    if (time.count() < 0) return -1;
    return static_cast<std::int32_t>(time.count() < most ? time.count() : most);
}
inline std::uint64_t span(milliseconds time) noexcept {
    return time.count() < 0 ? 0 : static_cast<std::uint64_t>(time.count());
}
} // namespace detail

/* Bytes that somebody else owns. */
class bytes_view {
public:
    constexpr bytes_view() noexcept = default;
    bytes_view(const void *data, std::size_t size) noexcept : data_(static_cast<const std::uint8_t *>(data)), size_(size) {}
    bytes_view(std::string_view text) noexcept : bytes_view(text.data(), text.size()) {}
    bytes_view(const std::string &text) noexcept : bytes_view(text.data(), text.size()) {}
    bytes_view(const char *text) noexcept : bytes_view(text, std::strlen(text)) {}
    bytes_view(const std::vector<std::uint8_t> &bytes) noexcept : bytes_view(bytes.data(), bytes.size()) {}

    const std::uint8_t *data() const noexcept { return data_; }
    std::size_t         size() const noexcept { return size_; }
    bool                empty() const noexcept { return size_ == 0; }
    const std::uint8_t *begin() const noexcept { return data_; }
    const std::uint8_t *end() const noexcept { return data_ + size_; }
    std::string_view    text() const noexcept { return {reinterpret_cast<const char *>(data_), size_}; }
    std::vector<std::uint8_t> copy() const { return {begin(), end()}; }

private:
    const std::uint8_t *data_ = nullptr;
    std::size_t         size_ = 0;
};

/* ---- peer ids and identities ------------------------------------------------------ */

/* Who a peer is: an Ed25519 public key. Ordered by its bytes, with a std::hash. */
class peer_id {
public:
    peer_id() noexcept : raw_{} {}
    peer_id(const crust_peer_id &raw) noexcept : raw_(raw) {}
    /* Reads 64 hexadecimal digits. */
    static peer_id parse(const std::string &text) {
        peer_id id;
        check(crust_peer_id_parse(text.c_str(), &id.raw_));
        return id;
    }
    /* 64 hexadecimal digits. */
    std::string text() const {
        char text[CRUST_PEER_ID_TEXT];
        check(crust_peer_id_format(&raw_, text));
        return text;
    }
    bytes_view           bytes() const noexcept { return {raw_.bytes, sizeof raw_.bytes}; }
    const crust_peer_id &raw() const noexcept { return raw_; }

    friend bool operator==(const peer_id &a, const peer_id &b) noexcept { return a.compare(b) == 0; }
    friend bool operator!=(const peer_id &a, const peer_id &b) noexcept { return a.compare(b) != 0; }
    friend bool operator<(const peer_id &a, const peer_id &b) noexcept { return a.compare(b) < 0; }

private:
    int compare(const peer_id &other) const noexcept { return std::memcmp(raw_.bytes, other.raw_.bytes, sizeof raw_.bytes); }

    crust_peer_id raw_;
};

/* A secret, and the peer that it makes. */
struct identity {
    std::array<std::uint8_t, CRUST_SEED_SIZE> seed;
    peer_id                                   id;

    static identity generate() {
        identity      made{};
        crust_peer_id id;
        check(crust_identity_generate(made.seed.data(), &id));
        made.id = id;
        return made;
    }
};

/* Who has made a connection info. Throws BAD_INFO. */
inline peer_id info_peer(bytes_view info) {
    crust_peer_id id;
    check(crust_connection_info_peer(info.data(), info.size(), &id));
    return id;
}

/* ---- configuration ------------------------------------------------------------------- */

/* A peer that has proved its key, for a gate: valid until the gate returns. */
class gate_request {
public:
    explicit gate_request(const crust_gate_request &raw) noexcept : raw_(raw) {}
    peer_id          peer() const noexcept { return raw_.peer; }
    bytes_view       app_id() const noexcept { return {raw_.app_id, raw_.app_id_len}; }
    std::string_view endpoint() const noexcept { return raw_.endpoint != nullptr ? raw_.endpoint : ""; }
    unsigned         how() const noexcept { return raw_.how; }   /* CRUST_HOW_* */
    unsigned         role() const noexcept { return raw_.role; } /* CRUST_ROLE_* */
    bool             outbound() const noexcept { return raw_.outbound != 0; }

private:
    const crust_gate_request &raw_;
};

/* How a service is made. One thread at a time. */
class config {
public:
    /* Returns whether the peer is let in; called by several threads at once. */
    using gate_function = std::function<bool(const gate_request &)>;

    config() { check(crust_config_new(&raw_)); }
    config(config &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
    config &operator=(config &&other) noexcept {
        if (this != &other) {
            crust_config_free(raw_);
            raw_ = std::exchange(other.raw_, nullptr);
        }
        return *this;
    }
    config(const config &) = delete;
    config &operator=(const config &) = delete;
    ~config() { crust_config_free(raw_); }

    /* CRUST_OPT_* */
    config &set(crust_option option, std::uint64_t value) { return did(crust_config_set_u64(raw_, option, value)); }
    config &set(crust_option option, const std::string &value) { return did(crust_config_set_str(raw_, option, value.c_str())); }
    config &set(crust_option option, const char *value) { return did(crust_config_set_str(raw_, option, value)); }
    config &set(crust_option option, milliseconds value) { return set(option, detail::span(value)); }
    config &set_bytes(crust_option option, bytes_view value) {
        return did(crust_config_set_bytes(raw_, option, value.data(), value.size()));
    }
    config &network_name(const std::string &name) { return set(CRUST_OPT_NETWORK_NAME, name); }
    config &app_id(bytes_view id) { return set_bytes(CRUST_OPT_APP_ID, id); }
    config &seed(const std::array<std::uint8_t, CRUST_SEED_SIZE> &seed) {
        return set_bytes(CRUST_OPT_IDENTITY_SEED, {seed.data(), seed.size()});
    }
    config &listen(const std::string &endpoint) { return did(crust_config_add_listener(raw_, endpoint.c_str())); }
    config &contact(const std::string &contact) { return did(crust_config_add_contact(raw_, contact.c_str())); }
    config &stun(const std::string &server) { return did(crust_config_add_stun(raw_, server.c_str())); }
    config &ban(const std::string &who) { return did(crust_config_add_ban(raw_, who.c_str())); }
    config &allow(std::uint32_t role, const std::string &prefix) { return did(crust_config_add_allowed(raw_, role, prefix.c_str())); }
    config &load_json(std::string_view json) { return did(crust_config_load_json(raw_, json.data(), json.size())); }
    config &gate(gate_function gate) {
        if (!gate) return did(crust_config_set_gate(raw_, nullptr, nullptr, nullptr));
        auto kept = std::make_unique<gate_function>(std::move(gate));
        check(crust_config_set_gate(raw_, ask, kept.get(), forget));
        kept.release(); // from now on forget deletes it
        return *this;
    }
    const crust_config *handle() const noexcept { return raw_; }
    crust_config       *handle() noexcept { return raw_; }

private:
    config &did(crust_result result) {
        check(result);
        return *this;
    }
    static int CRUST_CALL ask(void *user, const crust_gate_request *request) noexcept {
        try {
            return (*static_cast<gate_function *>(user))(gate_request(*request)) ? 1 : 0;
        } catch (...) {
            return 0;
        }
    }
    static void CRUST_CALL forget(void *user) noexcept { delete static_cast<gate_function *>(user); }

    crust_config *raw_ = nullptr;
};

/* ---- events ------------------------------------------------------------------------------ */

/* One event. What a field means for which type is said at CRUST_EVENT_*. */
class event {
public:
    explicit event(const crust_event &raw) noexcept : raw_(&raw) {}
    crust_event_type type() const noexcept { return raw_->type; } /* CRUST_EVENT_* */
    crust_result     code() const noexcept { return raw_->code; }
    unsigned         priority() const noexcept { return raw_->priority; }
    unsigned         role() const noexcept { return raw_->role; }
    unsigned         how() const noexcept { return raw_->how; }
    std::uint32_t    count() const noexcept { return raw_->count; }
    std::uint64_t    token() const noexcept { return raw_->token; }
    std::uint64_t    byte_count() const noexcept { return raw_->bytes; }
    bool             has_peer() const noexcept { return raw_->peer != nullptr; }
    peer_id          peer() const noexcept { return has_peer() ? peer_id(*raw_->peer) : peer_id(); } /* all zero when none */
    bytes_view       data() const noexcept { return {raw_->data, static_cast<std::size_t>(raw_->len)}; }
    std::string_view endpoint() const noexcept { return raw_->endpoint != nullptr ? raw_->endpoint : ""; }
    std::string_view text() const noexcept { return raw_->text != nullptr ? raw_->text : ""; }
    std::chrono::microseconds took() const noexcept { return std::chrono::microseconds(raw_->took_us); }
    const crust_event &raw() const noexcept { return *raw_; }
    /* Throws what the event says, unless its code is CRUST_OK. */
    void check() const {
        if (raw_->code < 0) throw error(raw_->code, raw_->text != nullptr ? raw_->text : crust_strerror(raw_->code));
    }

private:
    const crust_event *raw_;
};

/* Events that were taken together, in order: a range of event. */
class batch {
public:
    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = event;
        using difference_type = std::ptrdiff_t;
        using pointer = void;
        using reference = event;

        explicit iterator(const crust_event *at = nullptr) noexcept : at_(at) {}
        event     operator*() const noexcept { return event(*at_); }
        iterator &operator++() noexcept {
            ++at_;
            return *this;
        }
        iterator    operator++(int) noexcept { return iterator(at_++); }
        friend bool operator==(iterator a, iterator b) noexcept { return a.at_ == b.at_; }
        friend bool operator!=(iterator a, iterator b) noexcept { return a.at_ != b.at_; }

    private:
        const crust_event *at_;
    };

    batch() noexcept = default;
    explicit batch(crust_batch *raw) noexcept : raw_(raw), events_(crust_batch_events(raw, &size_)) {}
    batch(batch &&other) noexcept { swap(other); }
    batch &operator=(batch &&other) noexcept {
        batch(std::move(other)).swap(*this);
        return *this;
    }
    batch(const batch &) = delete;
    batch &operator=(const batch &) = delete;
    ~batch() { crust_batch_free(raw_); }

    std::size_t size() const noexcept { return size_; }
    bool        empty() const noexcept { return size_ == 0; }
    event       operator[](std::size_t i) const noexcept { return event(events_[i]); }
    iterator    begin() const noexcept { return iterator(events_); }
    iterator    end() const noexcept { return iterator(events_ + size_); }

private:
    void swap(batch &other) noexcept {
        std::swap(raw_, other.raw_);
        std::swap(size_, other.size_);
        std::swap(events_, other.events_);
    }

    crust_batch       *raw_ = nullptr;
    std::size_t        size_ = 0;
    const crust_event *events_ = nullptr;
};

/* ---- services ---------------------------------------------------------------------------------- */

/* A message of send_batch. What it points to is copied by the call. */
struct message {
    peer_id      peer;
    bytes_view   data;
    std::uint8_t priority = 0;
};

/* Peers that are kept connected, see crust_group. */
struct group {
    std::string                            name;
    std::uint32_t                          any = 0;
    std::uint32_t                          role = CRUST_ROLE_NODE;
    std::vector<peer_id>                   peers;
    std::vector<std::string>               contacts;
    std::vector<std::vector<std::uint8_t>> infos;
};

/* What is known of the NATs, see crust_service_nat. */
struct nat {
    crust_nat                     all;
    crust_nat_flow                udp, tcp;
    std::vector<crust_nat_server> servers;
    std::vector<crust_nat_port>   ports;
    std::vector<crust_nat_seen>   seen;
};

namespace detail {
inline std::vector<const char *> pointers(const std::vector<std::string> &texts) {
    std::vector<const char *> out;
    out.reserve(texts.size());
    for (const std::string &text : texts) out.push_back(text.c_str());
    return out;
}
template <typename T> T sized() noexcept {
    T made{};
    made.struct_size = static_cast<std::uint32_t>(sizeof made);
    return made;
}
/* Everything that a function describes by index. */
template <typename T, typename F> std::vector<T> all(F describe) {
    std::vector<T> out;
    for (std::uint32_t i = 0;; i++) {
        T one = sized<T>();
        if (check(describe(i, &one)) <= static_cast<crust_result>(i)) return out;
        out.push_back(one);
    }
}
/* Everything that a function writes into an array whose room it is told. */
template <typename T, typename F> std::vector<T> fill(F write, T blank) {
    std::vector<T> out;
    for (;;) {
        std::size_t n = 0;
        check(write(nullptr, &n));
        out.assign(n + 4, blank);
        n = out.size();
        const crust_result result = write(out.data(), &n);
        if (result == CRUST_ERR_BUFFER_TOO_SMALL) continue; // there are more by now
        check(result);
        out.resize(n);
        return out;
    }
}
} // namespace detail

/* A service that somebody else owns. */
class service_ref {
public:
    explicit service_ref(crust_service handle = 0) noexcept : handle_(handle) {}
    crust_service handle() const noexcept { return handle_; }

    peer_id id() const {
        crust_peer_id id;
        check(crust_service_id(handle_, &id));
        return id;
    }
    /* Begins to close and returns at once; events come until STOPPED. */
    void close() const { check(crust_service_close(handle_)); }

    /* -- messages -- */

    void send(const peer_id &peer, bytes_view data, std::uint8_t priority = 0) const {
        check(crust_send(handle_, &peer.raw(), data.data(), data.size(), priority));
    }
    /* The same, but returns false when the queue is full; a WRITABLE event will follow. */
    [[nodiscard]] bool try_send(const peer_id &peer, bytes_view data, std::uint8_t priority = 0) const {
        const crust_result result = crust_send(handle_, &peer.raw(), data.data(), data.size(), priority);
        return result != CRUST_ERR_WOULD_BLOCK && check(result) >= 0;
    }
    void send_wait(const peer_id &peer, bytes_view data, std::uint8_t priority = 0, milliseconds timeout = forever) const {
        check(crust_send_wait(handle_, &peer.raw(), data.data(), data.size(), priority, detail::wait(timeout)));
    }
    /* Returns how many were accepted; *why, unless null, is why the next one was not. */
    std::size_t send_batch(const std::vector<message> &messages, crust_result *why = nullptr) const {
        std::vector<crust_message> raw(messages.size());
        for (std::size_t i = 0; i < raw.size(); i++) {
            raw[i].peer = &messages[i].peer.raw();
            raw[i].data = messages[i].data.data();
            raw[i].len = messages[i].data.size();
            raw[i].priority = messages[i].priority;
        }
        return static_cast<std::size_t>(check(crust_send_batch(handle_, raw.data(), raw.size(), why)));
    }
    void send_receipt(const peer_id &peer, bytes_view data, std::uint8_t priority, std::uint64_t token) const {
        check(crust_send_receipt(handle_, &peer.raw(), data.data(), data.size(), priority, token));
    }
    void send_datagram(const peer_id &peer, bytes_view data) const {
        check(crust_send_datagram(handle_, &peer.raw(), data.data(), data.size()));
    }
    std::size_t max_datagram(const peer_id &peer) const {
        return static_cast<std::size_t>(check(crust_max_datagram(handle_, &peer.raw())));
    }

    /* -- connecting -- */

    void prepare_connection_info(std::uint64_t token = 0) const { check(crust_prepare_connection_info(handle_, token)); }
    void connect(bytes_view info, std::uint64_t token = 0) const { check(crust_connect(handle_, info.data(), info.size(), token)); }
    void connect_endpoint(const std::string &contact, std::uint64_t token = 0) const {
        check(crust_connect_endpoint(handle_, contact.c_str(), token));
    }
    void connect_peer(const peer_id &peer, std::uint64_t token = 0) const {
        check(crust_service_connect_peer(handle_, &peer.raw(), token));
    }
    void connect_peer(const peer_id &peer, std::uint64_t token, const std::vector<bytes_view> &first) const {
        std::vector<const void *> at;
        std::vector<std::size_t> sizes;
        for (const bytes_view &message : first) {
            at.push_back(message.data());
            sizes.push_back(message.size());
        }
        check(crust_service_connect_peer_with(handle_, &peer.raw(), at.data(), sizes.data(), at.size(), token));
    }
    void disconnect(const peer_id &peer) const { check(crust_disconnect(handle_, &peer.raw())); }
    void bootstrap(std::uint64_t token = 0, const std::vector<std::string> &except = {}) const {
        const auto list = detail::pointers(except);
        check(except.empty() ? crust_bootstrap(handle_, token) : crust_bootstrap_except(handle_, list.data(), list.size(), token));
    }
    void stop_bootstrap() const { check(crust_stop_bootstrap(handle_)); }

    /* -- groups -- */

    void keep(const group &group) const {
        std::vector<crust_peer_id> peers;
        std::vector<const void *>  infos;
        std::vector<std::size_t>   lens;
        for (const peer_id &peer : group.peers) peers.push_back(peer.raw());
        for (const auto &info : group.infos) {
            infos.push_back(info.data());
            lens.push_back(info.size());
        }
        const auto contacts = detail::pointers(group.contacts);
        auto       raw = detail::sized<crust_group>();
        raw.any = group.any;
        raw.role = group.role;
        raw.name = group.name.c_str();
        raw.peers = peers.data();
        raw.n_peers = peers.size();
        raw.contacts = contacts.data();
        raw.n_contacts = contacts.size();
        raw.infos = infos.data();
        raw.info_lens = lens.data();
        raw.n_infos = infos.size();
        check(crust_service_keep(handle_, &raw));
    }
    void release(const std::string &name) const { check(crust_service_release(handle_, name.c_str())); }
    std::vector<crust_group_info> groups() const {
        return detail::all<crust_group_info>([this](std::uint32_t i, crust_group_info *io) { return crust_service_group(handle_, i, io); });
    }
    std::vector<crust_group_peer> group_peers(const std::string &name) const {
        return detail::all<crust_group_peer>(
            [&](std::uint32_t i, crust_group_peer *io) { return crust_service_group_peer(handle_, name.c_str(), i, io); });
    }

    /* -- who is not wanted -- */

    /* time 0: as long as the service lives. */
    void ban(const std::vector<std::string> &who, milliseconds time = milliseconds(0), const std::string &reason = {}) const {
        const auto list = detail::pointers(who);
        check(crust_ban(handle_, list.data(), list.size(), detail::span(time), reason.c_str()));
    }
    std::size_t unban(const std::vector<std::string> &who) const {
        const auto list = detail::pointers(who);
        return static_cast<std::size_t>(check(crust_unban(handle_, list.data(), list.size())));
    }
    std::vector<crust_ban_info> bans() const {
        return detail::fill([this](crust_ban_info *bans, std::size_t *n) { return crust_bans(handle_, bans, n); },
                            detail::sized<crust_ban_info>());
    }
    void set_allowed(const std::vector<std::string> &nodes, const std::vector<std::string> &clients) const {
        const auto a = detail::pointers(nodes), b = detail::pointers(clients);
        check(crust_set_allowed(handle_, a.data(), a.size(), b.data(), b.size()));
    }

    /* -- listeners -- */

    void listen(const std::string &endpoint) const { check(crust_listen(handle_, endpoint.c_str())); }
    void stop_listening(const std::string &endpoint) const { check(crust_stop_listening(handle_, endpoint.c_str())); }
    void set_accept(bool accept) const { check(crust_set_accept(handle_, accept ? 1 : 0)); }
    void set_beacon(std::uint32_t mode) const { check(crust_set_beacon(handle_, mode)); } /* CRUST_BEACON_* */
    void network_changed() const { check(crust_service_network_changed(handle_)); }
    std::vector<std::string> listeners() const {
        const auto text = detail::fill([this](char *buf, std::size_t *len) { return crust_listeners(handle_, buf, len); }, '\0');
        std::vector<std::string> out;
        std::string_view         rest(text.data());
        while (!rest.empty()) {
            const std::size_t end = rest.find('\n');
            out.emplace_back(rest.substr(0, end));
            rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
        }
        return out;
    }

    /* -- looking -- */

    std::vector<peer_id> peers() const {
        const auto ids = detail::fill([this](crust_peer_id *out, std::size_t *n) { return crust_peers(handle_, out, n); }, crust_peer_id{});
        return {ids.begin(), ids.end()};
    }
    crust_peer_info peer(const peer_id &peer) const {
        auto info = detail::sized<crust_peer_info>();
        check(crust_peer(handle_, &peer.raw(), &info));
        return info;
    }
    crust_stats stats() const {
        auto stats = detail::sized<crust_stats>();
        check(crust_service_stats(handle_, &stats));
        return stats;
    }
    crust::nat nat() const {
        crust::nat out{detail::sized<crust_nat>(), detail::sized<crust_nat_flow>(), detail::sized<crust_nat_flow>(), {}, {}, {}};
        check(crust_service_nat(handle_, &out.all, &out.udp, &out.tcp));
        out.servers = detail::all<crust_nat_server>(
            [this](std::uint32_t i, crust_nat_server *io) { return crust_service_nat_server(handle_, i, io); });
        out.ports =
            detail::all<crust_nat_port>([this](std::uint32_t i, crust_nat_port *io) { return crust_service_nat_port(handle_, i, io); });
        out.seen =
            detail::all<crust_nat_seen>([this](std::uint32_t i, crust_nat_seen *io) { return crust_service_nat_seen(handle_, i, io); });
        return out;
    }
    std::vector<crust_lan_peer> lan_peers() const {
        return detail::all<crust_lan_peer>([this](std::uint32_t i, crust_lan_peer *io) { return crust_service_lan_peer(handle_, i, io); });
    }
    std::vector<crust_known_peer> known() const {
        std::vector<crust_known_peer> out, some;
        do {
            some.assign(64, detail::sized<crust_known_peer>());
            std::size_t n = some.size();
            check(crust_service_known(handle_, out.empty() ? nullptr : &out.back().peer, some.data(), &n));
            some.resize(n);
            out.insert(out.end(), some.begin(), some.end());
        } while (some.size() == 64);
        return out;
    }

    /* -- poll mode -- */

    /* Readable while events wait; for epoll and the like. Not to be read or closed. */
    std::intptr_t fd() const {
        std::intptr_t fd;
        check(crust_service_fd(handle_, &fd));
        return fd;
    }
    /* Takes events, at most max of them, 0: as many as come together. Without any in
     * time, or after wakeup, the batch is empty. Nothing when the service has stopped and
     * all its events were taken. */
    std::optional<batch> poll(milliseconds timeout = forever, std::uint32_t max = 0) const {
        crust_batch       *raw = nullptr;
        const crust_result result = crust_poll(handle_, detail::wait(timeout), max, &raw);
        if (result == CRUST_ERR_CLOSED) return std::nullopt;
        check(result);
        return batch(raw);
    }
    void wakeup() const { check(crust_wakeup(handle_)); }

    class event_range;
    /* The events as they come, one after another: ends when none comes within the time,
     * by wakeup, and after STOPPED. */
    event_range events(milliseconds timeout = forever) const;

private:
    crust_service handle_;
};

/* Waits for events while it is looped over. One loop at a time. */
class service_ref::event_range {
public:
    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = event;
        using difference_type = std::ptrdiff_t;
        using pointer = void;
        using reference = event;

        explicit iterator(event_range *range = nullptr) noexcept : range_(range) {}
        event     operator*() const noexcept { return range_->batch_[range_->next_]; }
        iterator &operator++() {
            ++range_->next_;
            return settle();
        }
        void        operator++(int) { ++*this; }
        friend bool operator==(const iterator &a, const iterator &b) noexcept { return a.range_ == b.range_; }
        friend bool operator!=(const iterator &a, const iterator &b) noexcept { return a.range_ != b.range_; }

    private:
        friend class event_range;
        iterator &settle() {
            if (!range_->more()) range_ = nullptr;
            return *this;
        }
        event_range *range_;
    };

    iterator begin() { return iterator(this).settle(); }
    iterator end() noexcept { return iterator(); }

private:
    friend class service_ref;
    event_range(service_ref service, milliseconds timeout) noexcept : service_(service), timeout_(timeout) {}
    bool more() {
        if (next_ < batch_.size()) return true;
        next_ = 0;
        batch_ = service_.poll(timeout_).value_or(batch());
        return !batch_.empty();
    }

    service_ref  service_;
    milliseconds timeout_;
    batch        batch_;
    std::size_t  next_ = 0;
};

inline service_ref::event_range service_ref::events(milliseconds timeout) const { return {*this, timeout}; }

/* A service, which is closed and freed with the object. */
class service : public service_ref {
public:
    /* Gets each event in turn, on one thread of the library, perhaps before the service's
     * constructor has returned: service is the one that the event is of. */
    using handler = std::function<void(service_ref service, const event &event)>;

    /* In poll mode. */
    explicit service(const config &config) : service_ref(make(config, nullptr)) {}
    /* In callback mode. */
    service(const config &config, handler on_event) : service(config, std::make_shared<hooks>(std::move(on_event))) {}

    service(service &&other) noexcept : service_ref(other), hooks_(std::move(other.hooks_)) { other.forget(); }
    service &operator=(service &&other) noexcept {
        if (this != &other) {
            (void)crust_service_free(handle());
            service_ref::operator=(other);
            hooks_ = std::move(other.hooks_);
            other.forget();
        }
        return *this;
    }
    service(const service &) = delete;
    service &operator=(const service &) = delete;
    /* Waits until the last handler has returned. */
    ~service() {
        if (handle() != 0 && crust_service_free(handle()) == CRUST_ERR_WOULD_DEADLOCK) (void)crust_service_close(handle());
    }

    /* Closes, waits for the last handler, frees, and throws what a handler has thrown. */
    void free() {
        const crust_service freed = handle();
        const auto          kept = std::move(hooks_);
        forget();
        const crust_result result = crust_service_free(freed);
        if (kept) kept->rethrow();
        check(result);
    }
    /* Throws what a handler has thrown, if one has. */
    void rethrow() const {
        if (hooks_) hooks_->rethrow();
    }

private:
    /* What the callbacks need. The library holds it until on_release, too. */
    struct hooks {
        explicit hooks(handler on_event) : call(std::move(on_event)) {}
        void rethrow() {
            const std::lock_guard<std::mutex> lock(mutex);
            if (failure) std::rethrow_exception(failure);
        }

        handler            call;
        std::mutex         mutex;
        std::exception_ptr failure;
    };

    service(const config &config, std::shared_ptr<hooks> kept)
        : service_ref(make(config, std::make_unique<std::shared_ptr<hooks>>(kept))), hooks_(std::move(kept)) {}

    static crust_service make(const config &config, std::unique_ptr<std::shared_ptr<hooks>> user) {
        crust_service handle = 0;
        if (!user) {
            check(crust_service_new(config.handle(), nullptr, &handle));
            return handle;
        }
        auto callbacks = detail::sized<crust_callbacks>();
        callbacks.user = user.get();
        callbacks.on_events = on_events;
        callbacks.on_release = on_release;
        check(crust_service_new(config.handle(), &callbacks, &handle));
        user.release(); // from now on on_release deletes it
        return handle;
    }
    static void CRUST_CALL on_events(void *user, crust_service service, const crust_event *events, size_t n) noexcept {
        hooks &mine = **static_cast<std::shared_ptr<hooks> *>(user);
        for (size_t i = 0; i < n; i++) {
            {
                const std::lock_guard<std::mutex> lock(mine.mutex);
                if (mine.failure) return;
            }
            try {
                mine.call(service_ref(service), event(events[i]));
            } catch (...) {
                const std::lock_guard<std::mutex> lock(mine.mutex);
                mine.failure = std::current_exception();
                (void)crust_service_close(service);
            }
        }
    }
    static void CRUST_CALL on_release(void *user) noexcept { delete static_cast<std::shared_ptr<hooks> *>(user); }
    void               forget() noexcept { service_ref::operator=(service_ref()); }

    std::shared_ptr<hooks> hooks_;
};

} // namespace crust

template <> struct std::hash<crust::peer_id> {
    std::size_t operator()(const crust::peer_id &id) const noexcept {
        std::size_t value; // the bytes of a key are as good as random
        std::memcpy(&value, id.bytes().data(), sizeof value);
        return value;
    }
};

#endif /* CRUST_HPP */
