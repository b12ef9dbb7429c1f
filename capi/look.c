/*
 * look.c - the functions of crust.h that look at a service and change nothing. What they give
 * is in structs whose sizes are the program's.
 */
#include "guard.h"
#include "_cgo_export.h"

#include <string.h>

crust_result CRUST_CALL crust_peers(crust_service service, crust_peer_id *ids, size_t *n) {
    NEED(n);
    if (!ids) *n = 0;
    FORK_GUARD();
    return goCrustPeers(service, ids, n, crust__last_error);
}

/* Copies as much of one of our structs as the program's is large, keeps its
 * struct_size and clears what it has beyond ours. */
static void give_struct(void *to, uint32_t size, const void *from, size_t ours) {
    size_t n = size < ours ? size : ours;
    memcpy(to, from, n);
    memcpy(to, &size, sizeof size);
    if (size > n) memset((char *)to + n, 0, size - n);
}

crust_result CRUST_CALL crust_peer(crust_service service, const crust_peer_id *peer, crust_peer_info *io) {
    crust_peer_info info;
    crust_peer_id id = {{0}};
    crust_result r;
    FORK_GUARD();
    NEED(io);
    if (io->struct_size < 8 || io->struct_size > MAX_STRUCT_SIZE)
        return crust__fail(CRUST_ERR_ABI, __func__, "io->struct_size must be sizeof(crust_peer_info)");
    if (peer) id = *peer; /* it may lie in *io */
    memset(&info, 0, sizeof info);
    give_struct(io, io->struct_size, &info, sizeof info);
    NEED(peer);
    r = goCrustPeer(service, &id, &info, crust__last_error);
    if (r == CRUST_OK) give_struct(io, io->struct_size, &info, sizeof info);
    return r;
}

crust_result CRUST_CALL crust_service_stats(crust_service service, crust_stats *io) {
    crust_stats stats;
    crust_result r;
    FORK_GUARD();
    NEED(io);
    if (io->struct_size < 8 || io->struct_size > MAX_STRUCT_SIZE)
        return crust__fail(CRUST_ERR_ABI, __func__, "io->struct_size must be sizeof(crust_stats)");
    memset(&stats, 0, sizeof stats);
    give_struct(io, io->struct_size, &stats, sizeof stats);
    r = goCrustServiceStats(service, &stats, crust__last_error);
    if (r == CRUST_OK) give_struct(io, io->struct_size, &stats, sizeof stats);
    return r;
}

/* Refuses a struct_size, or clears all of the struct but that. */
static int bad_struct(void *io, uint32_t size) {
    if (!io) return 0;
    if (size < 8 || size > MAX_STRUCT_SIZE) return 1;
    memset((char *)io + sizeof size, 0, size - sizeof size);
    return 0;
}

crust_result CRUST_CALL crust_service_nat(crust_service service, crust_nat *io, crust_nat_flow *udp, crust_nat_flow *tcp) {
    crust_nat nat;
    crust_nat_flow flows[2];
    crust_result r;
    FORK_GUARD();
    if (bad_struct(io, io ? io->struct_size : 0)) return crust__fail(CRUST_ERR_ABI, __func__, "io->struct_size must be sizeof(crust_nat)");
    if (bad_struct(udp, udp ? udp->struct_size : 0) || bad_struct(tcp, tcp ? tcp->struct_size : 0))
        return crust__fail(CRUST_ERR_ABI, __func__, "struct_size of udp and tcp must be sizeof(crust_nat_flow)");
    memset(&nat, 0, sizeof nat);
    memset(flows, 0, sizeof flows);
    r = goCrustServiceNAT(service, &nat, &flows[0], &flows[1], crust__last_error);
    if (r != CRUST_OK) return r;
    if (io) give_struct(io, io->struct_size, &nat, sizeof nat);
    if (udp) give_struct(udp, udp->struct_size, &flows[0], sizeof flows[0]);
    if (tcp) give_struct(tcp, tcp->struct_size, &flows[1], sizeof flows[1]);
    return CRUST_OK;
}

/* Asks Go for one of a list by its index: call has it written to entry and tells
 * how many there are. io may be NULL for a program that only counts. */
#define GIVE_ENTRY(type, io, call)                                                               \
    do {                                                                                         \
        type entry;                                                                              \
        crust_result r;                                                                          \
        FORK_GUARD();                                                                            \
        if (bad_struct(io, io ? io->struct_size : 0))                                            \
            return crust__fail(CRUST_ERR_ABI, __func__, #io "->struct_size must be sizeof(" #type ")"); \
        memset(&entry, 0, sizeof entry);                                                         \
        r = (call);                                                                              \
        if (r >= 0 && io) give_struct(io, io->struct_size, &entry, sizeof entry);                \
        return r;                                                                                \
    } while (0)

crust_result CRUST_CALL crust_service_nat_server(crust_service service, uint32_t index, crust_nat_server *io) {
    GIVE_ENTRY(crust_nat_server, io, goCrustServiceNATServer(service, index, &entry, crust__last_error));
}

crust_result CRUST_CALL crust_service_nat_port(crust_service service, uint32_t index, crust_nat_port *io) {
    GIVE_ENTRY(crust_nat_port, io, goCrustServiceNATPort(service, index, &entry, crust__last_error));
}

crust_result CRUST_CALL crust_service_nat_seen(crust_service service, uint32_t index, crust_nat_seen *io) {
    GIVE_ENTRY(crust_nat_seen, io, goCrustServiceNATSeen(service, index, &entry, crust__last_error));
}

crust_result CRUST_CALL crust_service_lan_peer(crust_service service, uint32_t index, crust_lan_peer *io) {
    GIVE_ENTRY(crust_lan_peer, io, goCrustServiceLANPeer(service, index, &entry, crust__last_error));
}

crust_result CRUST_CALL crust_service_known(crust_service service, const crust_peer_id *after, crust_known_peer *list, size_t *n) {
    crust_peer_id id = {{0}};
    uint32_t stride = 0;
    size_t room;
    NEED(n);
    room = *n;
    *n = 0;
    FORK_GUARD();
    if (list && room) {
        stride = list->struct_size;
        if (stride < 8 || stride > MAX_STRUCT_SIZE || stride % 8)
            return crust__fail(CRUST_ERR_ABI, __func__, "list->struct_size must be sizeof(crust_known_peer)");
    }
    if (after) id = *after;
    *n = room;
    return goCrustServiceKnown(service, after ? &id : NULL, list, stride, n, crust__last_error);
}

/* ---- groups and bans ---- */

crust_result CRUST_CALL crust_service_group(crust_service service, uint32_t index, crust_group_info *io) {
    GIVE_ENTRY(crust_group_info, io, goCrustServiceGroup(service, index, &entry, crust__last_error));
}

crust_result CRUST_CALL crust_service_group_peer(crust_service service, const char *name, uint32_t index, crust_group_peer *io) {
    GIVE_ENTRY(crust_group_peer, io,
               name ? goCrustServiceGroupPeer(service, (char *)name, index, &entry, crust__last_error)
                    : crust__fail(CRUST_ERR_INVALID, __func__, "name must not be NULL"));
}

/* Gives one of an array of structs. */
void crust__give_ban(crust_ban_info *bans, uint32_t size, size_t i, const crust_ban_info *ban) {
    give_struct((char *)bans + i * size, size, ban, sizeof *ban);
}

crust_result CRUST_CALL crust_bans(crust_service service, crust_ban_info *bans, size_t *n) {
    uint32_t size = 0;
    NEED(n);
    if (!bans || *n == 0) *n = 0;
    else size = bans->struct_size;
    FORK_GUARD();
    if (size != 0 && bad_struct(bans, size)) return crust__fail(CRUST_ERR_ABI, __func__, "bans->struct_size must be sizeof(crust_ban_info)");
    if (bans && *n > 0 && size == 0) return crust__fail(CRUST_ERR_ABI, __func__, "bans->struct_size must be sizeof(crust_ban_info)");
    return goCrustBans(service, bans, size, n, crust__last_error);
}
