/*
 * C++17 with crust.hpp: nothing is freed by hand, errors are exceptions. Alice is in
 * callback mode, Bob in poll mode, whose events a loop takes as they come.
 *
 *     c++ -std=c++17 -o raii raii.cc $(pkg-config --cflags --libs crust)
 *     ./raii [ENDPOINT]        where both listen, by default tcp://127.0.0.1:0
 */
#include <crust.hpp>

#include <iostream>

int main(int argc, char **argv) try {
    using namespace std::chrono_literals;
    crust::config config;
    config.network_name("example").listen(argc > 1 ? argv[1] : "tcp://127.0.0.1:0");

    crust::service bob(config);
    crust::service alice(config, [&bob](crust::service_ref self, const crust::event &event) {
        switch (event.type()) {
        case CRUST_EVENT_LISTENER_STARTED: self.prepare_connection_info(); break;
        case CRUST_EVENT_CONNECTION_INFO: bob.connect(event.data()); break;
        case CRUST_EVENT_CONNECTED: self.send(event.peer(), "hello"); break;
        case CRUST_EVENT_MESSAGE: std::cout << "bob says " << event.data().text() << std::endl; self.close(); break;
        case CRUST_EVENT_LISTENER_FAILED: event.check(); break; // throws what the event says: see rethrow below
        default: break;
        }
    });

    for (crust::event event : bob.events(20s)) { // ends after 20 s of silence, too
        if (event.type() == CRUST_EVENT_MESSAGE) {
            std::cout << "alice says " << event.data().text() << std::endl;
            bob.send(event.peer(), "hello yourself");
        }
        if (event.type() == CRUST_EVENT_LOST) break; // Alice has closed
        if (event.type() == CRUST_EVENT_CONNECT_FAILED) event.check();
    }
    alice.rethrow(); // what her handler has thrown
    return 0;
} catch (const crust::error &error) {
    std::cerr << error.name() << ": " << error.what() << '\n';
    return 1;
}
