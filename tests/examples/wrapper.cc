/* Tests crust.hpp: what it adds to crust.h, that is life, errors, ranges, and
 * exceptions that do not cross C. Prints a line for each test, ends with 0 or 1. */
#include <crust.hpp>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <functional>
#include <set>
#include <type_traits>
#include <unordered_set>

using namespace std::chrono_literals;

namespace {

template <typename T> constexpr bool owns = !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T> &&
                                            std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T>;
static_assert(owns<crust::config> && owns<crust::batch> && owns<crust::service>);
static_assert(std::is_copy_constructible_v<crust::service_ref> && std::is_trivially_copyable_v<crust::event>);

std::string where; // "tcp" or "utp"
int         failures;

void expect(bool right, const char *what, int line) {
    if (right) return;
    std::printf("line %d: %s\n", line, what);
    failures++;
}
#define EXPECT(condition) expect((condition), #condition, __LINE__)

template <typename F> crust_result code_of(F call) {
    try {
        call();
        return CRUST_OK;
    } catch (const crust::error &error) {
        EXPECT(std::string(error.what()).size() > 4);
        EXPECT(error.name() == std::string(crust_error_name(error.code())));
        return error.code();
    }
}

crust::config local() {
    crust::config config;
    config.network_name("wrapper").listen(where + "://127.0.0.1:0").set(CRUST_OPT_GOSSIP, CRUST_GOSSIP_OFF);
    config.set(CRUST_OPT_BEACON, CRUST_BEACON_OFF).set(CRUST_OPT_NO_PORT_MAP, 1);
    config.set(CRUST_OPT_NO_NETWORK_WATCH, 1).set(CRUST_OPT_GATE_TIMEOUT_MS, 5s); // others may be busy here
    return config;
}

/* The next event of a type; throws when it does not come. */
crust::batch await(crust::service_ref service, crust_event_type type) {
    for (;;) {
        std::optional<crust::batch> batch = service.poll(20s, 1);
        if (!batch || batch->empty()) throw std::runtime_error("event " + std::to_string(type) + " did not come");
        if ((*batch)[0].type() == type) return std::move(*batch);
    }
}

void join(crust::service_ref a, crust::service_ref b) {
    a.prepare_connection_info(1);
    const crust::batch info = await(a, CRUST_EVENT_CONNECTION_INFO);
    EXPECT(crust::info_peer(info[0].data()) == a.id());
    b.connect(info[0].data(), 2);
    EXPECT(await(a, CRUST_EVENT_CONNECTED)[0].peer() == b.id());
    EXPECT(await(b, CRUST_EVENT_CONNECTED)[0].token() == 2);
}

void ids() {
    const crust::identity one = crust::identity::generate(), two = crust::identity::generate();
    EXPECT(one.id != two.id && (one.id < two.id) != (two.id < one.id));
    EXPECT(crust::peer_id::parse(one.id.text()) == one.id);
    EXPECT((std::unordered_set<crust::peer_id>{one.id, two.id, one.id}.size() == 2));
    EXPECT(code_of([] { crust::peer_id::parse("nobody"); }) == CRUST_ERR_INVALID);
    const crust::service service(crust::config(local()).seed(one.seed));
    EXPECT(service.id() == one.id);
}

void errors() {
    crust::config config;
    EXPECT(code_of([&] { config.listen("nonsense"); }) == CRUST_ERR_INVALID);
    EXPECT(code_of([&] { config.load_json("{\"nonsense\": 1}"); }) == CRUST_ERR_INVALID);
    EXPECT(code_of([&] { config.set(CRUST_OPT_ROLE, "node"); }) == CRUST_ERR_INVALID);
    const crust::service service(local().set(CRUST_OPT_CONNECT_TIMEOUT_MS, 300ms));
    EXPECT(code_of([&] { service.send(service.id(), "to myself"); }) == CRUST_ERR_UNKNOWN_PEER);
    EXPECT(code_of([&] { (void)service.try_send(service.id(), "to myself"); }) == CRUST_ERR_UNKNOWN_PEER);
    EXPECT(code_of([&] { service.connect("no info"); }) == CRUST_ERR_BAD_INFO);
    EXPECT(code_of([] { (void)crust::service_ref(7).id(); }) == CRUST_ERR_BAD_HANDLE);
    service.connect_endpoint(where + "://127.0.0.1:1", 5);
    const crust::batch failed = await(service, CRUST_EVENT_CONNECT_FAILED);
    EXPECT(failed[0].token() == 5 && code_of([&] { failed[0].check(); }) == failed[0].code());
}

void life() {
    crust_service handle;
    {
        crust::service first(local());
        handle = first.handle();
        crust::service second(std::move(first));
        EXPECT(first.handle() == 0 && second.handle() == handle);
        crust::service third(local());
        const crust_service gone = third.handle();
        crust_peer_id       id;
        third = std::move(second);
        EXPECT(third.handle() == handle && crust_service_id(gone, &id) == CRUST_ERR_BAD_HANDLE);
        crust::service &same = third;
        third = std::move(same);
        EXPECT(third.id() == crust::service_ref(handle).id());
    }
    EXPECT(code_of([&] { (void)crust::service_ref(handle).id(); }) == CRUST_ERR_BAD_HANDLE);
    crust::config config = local(), other;
    other = std::move(config);
    EXPECT(config.handle() == nullptr && other.handle() != nullptr);
    crust::service service(other);
    service.free();
    EXPECT(service.handle() == 0 && code_of([&] { service.free(); }) == CRUST_ERR_BAD_HANDLE);
}

void ranges() {
    const crust::service service(local());
    await(service, CRUST_EVENT_LISTENER_STARTED);
    for (const crust::event event : service.events(0ms)) EXPECT(event.type() == 0); // nothing is there, so it ends
    service.wakeup();
    for (const crust::event event : service.events()) EXPECT(event.type() == 0);
    for (std::uint64_t token = 1; token <= 3; token++) service.prepare_connection_info(token);
    std::set<std::uint64_t> tokens;
    for (const crust::event event : service.events(20s)) {
        if (event.type() == CRUST_EVENT_CONNECTION_INFO) tokens.insert(event.token());
        if (tokens.size() == 3) break;
    }
    service.close();
    crust_event_type last = 0;
    for (const crust::event event : service.events()) last = event.type();
    EXPECT(last == CRUST_EVENT_STOPPED && !service.poll());
    crust::batch batch, other = std::move(batch);
    EXPECT(other.empty() && std::distance(other.begin(), other.end()) == 0);
}

void messages() {
    const crust::service a(local().set(CRUST_OPT_SEND_QUEUE_BYTES, CRUST_MAX_MESSAGE)), b(local());
    join(a, b);
    EXPECT(a.peers() == std::vector<crust::peer_id>{b.id()});
    const std::vector<crust::message> many{{b.id(), "one", 0}, {b.id(), std::string_view("two"), 0}, {a.id(), "me", 0}};
    crust_result                      why = CRUST_OK;
    EXPECT(a.send_batch(many, &why) == 2 && why == CRUST_ERR_UNKNOWN_PEER);
    EXPECT(await(b, CRUST_EVENT_MESSAGE)[0].data().text() == "one");
    EXPECT(await(b, CRUST_EVENT_MESSAGE)[0].data().copy() == std::vector<std::uint8_t>({'t', 'w', 'o'}));
    a.send_receipt(b.id(), {}, 1, 9);
    const crust::batch empty = await(b, CRUST_EVENT_MESSAGE), delivered = await(a, CRUST_EVENT_DELIVERED);
    EXPECT(empty[0].data().empty() && empty[0].priority() == 1 && delivered[0].token() == 9);
    EXPECT(a.max_datagram(b.id()) >= 1100);
    a.send_datagram(b.id(), "datagram");
    EXPECT(await(b, CRUST_EVENT_DATAGRAM)[0].data().text() == "datagram");
    a.send_wait(b.id(), "waits", 0, 20s);
    EXPECT(await(b, CRUST_EVENT_MESSAGE)[0].data().text() == "waits");

    // Nobody takes what comes, so that in the end the queue is full.
    const std::vector<std::uint8_t> large(1 << 20);
    int                             sent = 0;
    while (sent < 200 && a.try_send(b.id(), large)) sent++;
    EXPECT(sent > 0 && sent < 200);
    crust_result full = CRUST_OK; // what was full may have drained a little
    for (int more = 0; more < 200 && full == CRUST_OK; more++) full = code_of([&] { a.send(b.id(), large); });
    EXPECT(full == CRUST_ERR_WOULD_BLOCK);
    EXPECT(a.stats().peers == 1 && a.peer(b.id()).sent_messages >= 4 && a.peer(b.id()).peer.bytes[0] == b.id().raw().bytes[0]);
    a.disconnect(b.id());
    EXPECT(await(a, CRUST_EVENT_LOST)[0].peer() == b.id());
}

void looking() {
    const crust::service a(local()), b(local());
    const std::string    at(await(b, CRUST_EVENT_LISTENER_STARTED)[0].endpoint());
    EXPECT(b.listeners() == std::vector<std::string>{at} && crust::service(crust::config(local()).set(CRUST_OPT_NO_LISTEN, 1)).listeners().empty());
    EXPECT(a.known().empty() && a.lan_peers().empty() && a.bans().empty() && a.groups().empty());
    EXPECT(a.nat().ports.empty() && a.nat().servers.empty() && a.nat().all.reachable == 0);

    crust::group group;
    group.name = "friends";
    group.peers = {b.id()};
    group.contacts = {at + "#" + b.id().text()};
    a.keep(group);
    await(b, CRUST_EVENT_CONNECTED);
    await(a, CRUST_EVENT_CONNECTED);
    EXPECT(a.groups().size() == 1 && a.groups()[0].name == std::string("friends") && a.groups()[0].wanted == 1);
    EXPECT(a.group_peers("friends").size() == 1 && code_of([&] { (void)a.group_peers("foes"); }) == CRUST_ERR_INVALID);
    a.release("friends");
    EXPECT(a.groups().empty());

    a.ban({"203.0.113.0/24", "198.51.100.7", b.id().text()}, 1h, "for the test");
    const std::vector<crust_ban_info> bans = a.bans();
    EXPECT(bans.size() == 3 && bans[0].who == b.id().text() && bans[1].reason == std::string("for the test") && bans[2].left_ms > 0);
    EXPECT(a.unban({"203.0.113.0/24", "192.0.2.1"}) == 1 && a.bans().size() == 2);
    EXPECT(await(b, CRUST_EVENT_LOST)[0].peer() == a.id());
    b.stop_listening(at);
    b.set_accept(false);
    b.set_allowed({"127.0.0.0/8"}, {});
    b.set_beacon(CRUST_BEACON_OFF);
    b.network_changed();
    a.bootstrap(4, {at});
    EXPECT(await(a, CRUST_EVENT_BOOTSTRAP_FAILED)[0].token() == 4);
    EXPECT(code_of([&] { a.stop_bootstrap(); }) == CRUST_OK);
    EXPECT(code_of([&] { a.connect_peer(a.id()); }) == CRUST_ERR_SELF);
}

/* Waits until something that another thread does is true. */
class signal {
public:
    void set() {
        const std::lock_guard<std::mutex> lock(mutex_);
        set_ = true;
        changed_.notify_all();
    }
    bool wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        return changed_.wait_for(lock, 20s, [this] { return set_; });
    }

private:
    std::mutex              mutex_;
    std::condition_variable changed_;
    bool                    set_ = false;
};

struct boom {};

void handlers() {
    auto             kept = std::make_shared<int>(0);
    std::atomic<int> calls{0};
    signal           thrown;
    crust::service   service(local(), [&calls, &thrown, kept](crust::service_ref self, const crust::event &) {
        calls++;
        for (std::uint64_t i = 0; i < 100; i++) self.prepare_connection_info(i); // there will be events that nobody gets
        thrown.set();
        throw boom();
    });
    EXPECT(thrown.wait());
    crust::service moved(std::move(service));
    bool           caught = false;
    try {
        moved.free(); // waits for STOPPED
    } catch (const boom &) {
        caught = true;
    }
    EXPECT(caught && calls == 1 && moved.handle() == 0 && kept.use_count() == 1);

    // A handler that throws an error of the library, and one that is never called.
    signal         refused;
    crust::service other(local(), [&refused](crust::service_ref self, const crust::event &) {
        try {
            self.send(self.id(), "to myself");
        } catch (...) {
            refused.set();
            throw;
        }
    });
    EXPECT(refused.wait());
    EXPECT(code_of([&] { other.free(); }) == CRUST_ERR_UNKNOWN_PEER);
    EXPECT(code_of([&] { crust::service(crust::config(local()).set(CRUST_OPT_NO_LISTEN, 1), [kept](auto, const auto &) {}).rethrow(); }) == CRUST_OK);
    EXPECT(code_of([&] { crust::service(local().set(CRUST_OPT_CACHE, "/nowhere/at/all"), [kept](auto, const auto &) {}); }) <= CRUST_OK);
    crust::config nothing = local(), none(std::move(nothing));
    EXPECT(code_of([&] { (void)crust::service_ref(0).poll(0ms); }) == CRUST_ERR_BAD_HANDLE);
    EXPECT(kept.use_count() == 1);
}

/* Destroyed where it must not be: it closes, and nothing is used that is gone. */
void suicide() {
    std::unique_ptr<crust::service> service;
    signal                          ready, dead, stopped;
    crust_service                   handle;
    service = std::make_unique<crust::service>(local(), [&](crust::service_ref, const crust::event &event) {
        if (event.type() == CRUST_EVENT_LISTENER_STARTED) {
            EXPECT(ready.wait());
            service.reset();
            dead.set();
        }
        if (event.type() == CRUST_EVENT_STOPPED) stopped.set();
    });
    handle = service->handle();
    ready.set();
    EXPECT(dead.wait() && stopped.wait());
    EXPECT(crust_service_free(handle) == CRUST_OK); // what was left undone
}

void gates() {
    auto kept = std::make_shared<int>(0);
    for (const int verdict : {0, 1, 2}) {
        crust::config config = local();
        config.gate([verdict, kept](const crust::gate_request &request) -> bool {
            EXPECT(request.app_id().text() == "caller" && request.role() == CRUST_ROLE_NODE && !request.outbound());
            if (verdict == 2) throw boom();
            return verdict == 1;
        });
        const crust::service a(config), b(local().app_id("caller"));
        const std::string    at(await(a, CRUST_EVENT_LISTENER_STARTED)[0].endpoint());
        b.connect_endpoint(at, 3);
        if (verdict == 1)
            EXPECT(await(b, CRUST_EVENT_CONNECTED)[0].peer() == a.id());
        else
            EXPECT(await(b, CRUST_EVENT_CONNECT_FAILED)[0].code() == CRUST_ERR_NOT_ALLOWED);
    }
    EXPECT(kept.use_count() == 1);
    crust::config config = local();
    config.gate([kept](const crust::gate_request &) { return true; }).gate(nullptr);
    EXPECT(kept.use_count() == 1);
}

} // namespace

int main() {
    const std::pair<const char *, void (*)()> tests[] = {{"ids", ids},           {"errors", errors},     {"life", life},
                                                         {"ranges", ranges},     {"messages", messages}, {"looking", looking},
                                                         {"handlers", handlers}, {"suicide", suicide},   {"gates", gates}};
    int bad = 0;
    for (const char *transport : {"tcp", "utp"}) {
        where = transport;
        for (const auto &[name, run] : tests) {
            failures = 0;
            try {
                run();
            } catch (const std::exception &error) {
                std::printf("%s\n", error.what());
                failures++;
            }
            std::printf("%s %s over %s\n", failures == 0 ? "ok" : "not ok", name, transport);
            bad += failures;
        }
    }
    return bad != 0;
}
