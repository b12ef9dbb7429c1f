package crust

import "github.com/libcrust/libcrust/core/internal/netio"

// On returns cfg for a service that lives in another network than the kernel's.
func On(network netio.Network, cfg Config) Config {
	cfg.network = network
	return cfg
}
