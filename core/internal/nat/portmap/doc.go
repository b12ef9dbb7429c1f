// Package portmap asks the routers of this machine for ports: by PCP (RFC 6887),
// NAT-PMP (RFC 6886) and UPnP-IGD 1 and 2, all at once. It keeps the leases, sees
// when a router has lost them, and gives them back at Close.
//
//	Client ── supervise ── site (one for each local address with a router)
//	                        ├── pcp    port 5351, MAP and ANNOUNCE
//	                        ├── upnp   SSDP, description, SOAP
//	                        ├── pmp    port 5351, the same daemon more often than not
//	                        └── ears   announcements of PCP, NAT-PMP and SSDP
//
// A site asks in all ways at once. The first that answers maps; when several have
// answered, the order is PCP, IGD 2, NAT-PMP, IGD 1. What works is kept: another
// way takes over only when the one in use falls silent or refuses.
//
// A router that has forgotten its mappings shows it by an epoch that went back, by
// an announcement, by no longer knowing a mapping, or by falling silent. The first
// two and the last are looked for every 4 s, the third every 12 s.
//
// Answers are believed only from the router that was asked: sockets of port 5351
// are connected to it; SSDP answers count when they come from it and point back
// at it. Announcements are never believed: they make us ask.
//
// Of github.com/huin/goupnp the device description and the SOAP calls are used,
// through an HTTP client of our own: no proxy, no redirect, 3 s, 64 KiB, and only
// to the address that the description came from. Its discovery is not used: it
// fails as a whole when one interface fails, takes 2 s always, and believes any
// address.
//
// Goroutines begin with Config.Go and end before Close returns.
package portmap
