// Package crust gives a peer-to-peer program reliable, encrypted connections to
// other peers.
//
// A [Service] is one node. It has an identity, an Ed25519 key pair whose public
// half is its [PeerID]; listeners; sessions with peers that have proved theirs;
// and one queue of events, in which everything that happens arrives: messages,
// connections, losses, failures.
//
//	s, err := crust.New(crust.Config{NetworkName: "my overlay"})
//	if err != nil { ... }
//	defer s.Close()
//	for e := range s.Events(ctx) {
//		switch e.Type {
//		case crust.EventConnected:
//			s.Send(e.Peer, []byte("hello"), 0)
//		case crust.EventMessage:
//			fmt.Printf("%s says %q\n", e.Peer.Short(), e.Data)
//		}
//	}
//
// Two peers find each other by connection infos, which they exchange by any
// channel ([Service.PrepareConnectionInfo], [Service.Connect]), or by an address
// ([Service.ConnectEndpoint], [Service.Bootstrap]). Those on one network discover each
// other ([Config.Beacon], [Service.PeersOnLAN]). Whatever both do at once,
// there is one session for a pair of peers. Its link is a TCP connection, or uTP
// over UDP where TCP does not get through; when the link breaks the session is
// suspended, and resumes over the next one.
//
// # Promises
//
// Nobody is a peer before it has proved its key, and every stream is encrypted
// with forward secrecy. What [Service.Send] accepted is delivered in order within
// its priority, or an event says that it was not. Every queue has a bound in
// [Config], whose zero value is a stated default. Calls that take time on the
// network answer with an event that carries the caller's token: exactly one final
// event for each call that returned no error. [Service.Close] returns when every
// goroutine and descriptor of the service is gone. Errors are of type [*Error],
// with a [Code] that is the same number in every language.
package crust
