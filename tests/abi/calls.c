#include "calls.h"
#include "tap.h"

#include <string.h>

void check_calls(crust_service s, crust_result want, crust_result poll_want) {
    crust_peer_id peer, ids[4];
    crust_peer_info info;
    crust_stats stats;
    crust_nat nat;
    crust_message message;
    crust_group group;
    crust_batch *batch = NULL;
    crust_result why = 0;
    intptr_t fd = 0;
    size_t n = 4, len;
    char text[256];
    memset(&peer, 7, sizeof peer);
    memset(&message, 0, sizeof message);
    message.peer = &peer;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    memset(&nat, 0, sizeof nat);
    nat.struct_size = sizeof nat;
    memset(&group, 0, sizeof group);
    group.struct_size = sizeof group;
    group.name = "g";
    group.any = 1;
    len = sizeof text;
    CHECK_CODE(want, crust_send(s, &peer, "x", 1, 0));
    CHECK_CODE(want, crust_send_wait(s, &peer, "x", 1, 0, 10));
    CHECK_CODE(want, crust_send_batch(s, &message, 1, &why));
    CHECK_CODE(want, crust_send_receipt(s, &peer, "x", 1, 0, 1));
    CHECK_CODE(want, crust_send_datagram(s, &peer, "x", 1));
    CHECK_CODE(want, crust_max_datagram(s, &peer));
    CHECK_CODE(want, crust_prepare_connection_info(s, 1));
    CHECK_CODE(want, crust_connect(s, "x", 1, 1));
    CHECK_CODE(want, crust_connect_endpoint(s, "127.0.0.1:1", 1));
    CHECK_CODE(want, crust_service_connect_peer(s, &peer, 1));
    CHECK_CODE(want, crust_service_connect_peer_with(s, &peer, NULL, NULL, 0, 1));
    CHECK_CODE(want, crust_disconnect(s, &peer));
    CHECK_CODE(want, crust_bootstrap(s, 1));
    CHECK_CODE(want, crust_bootstrap_except(s, NULL, 0, 1));
    CHECK_CODE(want, crust_stop_bootstrap(s));
    CHECK_CODE(want, crust_service_keep(s, &group));
    CHECK_CODE(want, crust_service_release(s, "g"));
    CHECK_CODE(want, crust_service_group(s, 0, NULL));
    CHECK_CODE(want, crust_service_group_peer(s, "g", 0, NULL));
    CHECK_CODE(want, crust_listen(s, "127.0.0.1:0"));
    CHECK_CODE(want, crust_stop_listening(s, "127.0.0.1:1"));
    CHECK_CODE(want, crust_listeners(s, text, &len));
    CHECK_CODE(want, crust_set_accept(s, 1));
    CHECK_CODE(want, crust_set_beacon(s, CRUST_BEACON_OFF));
    CHECK_CODE(want, crust_ban(s, NULL, 0, 0, NULL));
    CHECK_CODE(want, crust_unban(s, NULL, 0));
    CHECK_CODE(want, crust_bans(s, NULL, &n));
    CHECK_CODE(want, crust_set_allowed(s, NULL, 0, NULL, 0));
    CHECK_CODE(want, crust_service_network_changed(s));
    CHECK_CODE(want, crust_peers(s, ids, &n));
    CHECK_CODE(want, crust_peer(s, &peer, &info));
    CHECK_CODE(want, crust_service_stats(s, &stats));
    CHECK_CODE(want, crust_service_nat(s, &nat, NULL, NULL));
    CHECK_CODE(want, crust_service_nat_server(s, 0, NULL));
    CHECK_CODE(want, crust_service_nat_port(s, 0, NULL));
    CHECK_CODE(want, crust_service_nat_seen(s, 0, NULL));
    CHECK_CODE(want, crust_service_lan_peer(s, 0, NULL));
    CHECK_CODE(want, crust_service_known(s, NULL, NULL, &n));
    CHECK_CODE(poll_want, crust_service_fd(s, &fd));
    CHECK_CODE(poll_want, crust_wakeup(s));
    batch = (crust_batch *)(void *)&n;
    CHECK_CODE(poll_want, crust_poll(s, 0, 0, &batch));
    CHECK(batch == NULL);
}
