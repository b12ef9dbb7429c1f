//! The bound functions are exactly those that the library exports, and all of
//! them link.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::path::Path;

/// Names each function and takes its address, so that the linker must find it.
macro_rules! linked {
    ($($name:ident)*) => {
        [$((stringify!($name), crust_sys::$name as *const () as usize)),*]
    };
}

fn linked() -> Vec<(&'static str, usize)> {
    linked! {
        crust_version_string crust_version_number crust_abi_version crust_has
        crust_strerror crust_error_name crust_last_error
        crust_peer_id_format crust_peer_id_parse crust_identity_generate
        crust_config_new crust_config_free crust_config_set_u64 crust_config_set_str
        crust_config_set_bytes crust_config_add_listener crust_config_add_contact
        crust_config_load_json
        crust_service_new crust_service_close crust_service_free crust_service_id
        crust_service_fd crust_poll crust_wakeup crust_batch_events crust_batch_memory
        crust_batch_free
        crust_send crust_send_wait crust_send_batch crust_send_receipt crust_send_datagram crust_max_datagram
        crust_prepare_connection_info crust_connect crust_connect_endpoint
        crust_connection_info_peer crust_disconnect crust_bootstrap crust_bootstrap_except crust_stop_bootstrap
        crust_listen crust_stop_listening crust_listeners crust_set_accept crust_set_beacon
        crust_service_network_changed crust_service_connect_peer crust_service_connect_peer_with
        crust_peers crust_peer crust_service_stats crust_service_nat
        crust_service_nat_server crust_service_nat_port crust_service_nat_seen crust_config_add_stun
        crust_service_lan_peer crust_service_known
        crust_ban crust_unban crust_bans crust_set_allowed crust_config_add_ban crust_config_add_allowed
        crust_config_set_gate
        crust_service_keep crust_service_release crust_service_group crust_service_group_peer
    }
    .to_vec()
}

#[test]
fn bound_functions_are_the_exported_ones() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../capi/exports.txt");
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|why| panic!("{} cannot be read: {why}", path.display()));
    let exported: BTreeSet<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let declared: BTreeSet<&str> = include_str!("../src/lib.rs")
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("pub fn "))
        .filter_map(|rest| Some(rest.split_once('(')?.0))
        .collect();
    let linked: BTreeSet<&str> = linked().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        declared, exported,
        "crust-sys declares what capi/exports.txt lists"
    );
    assert_eq!(
        linked, exported,
        "this test links what capi/exports.txt lists"
    );
}

#[test]
fn every_function_has_its_own_address() {
    let addresses: BTreeSet<usize> = linked().into_iter().map(|(_, address)| address).collect();
    assert!(!addresses.contains(&0));
    assert_eq!(addresses.len(), linked().len());
}

#[test]
fn the_linked_library_speaks_this_abi() {
    // SAFETY: pure functions without arguments; the text is in static storage.
    let (abi, number, text) = unsafe {
        (
            crust_sys::crust_abi_version(),
            crust_sys::crust_version_number(),
            CStr::from_ptr(crust_sys::crust_version_string()),
        )
    };
    assert_eq!(abi, crust_sys::CRUST_ABI_VERSION);
    let text = text.to_str().expect("ASCII");
    let from_number = format!("{}.{}.{}", number >> 16, number >> 8 & 0xff, number & 0xff);
    assert_eq!(text, from_number);
}
