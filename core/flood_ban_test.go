package crust_test

import (
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// banAll bans peers, addresses and prefixes, and returns how long that took.
func banAll(s *crust.Service, whom []string) time.Duration {
	var entries []crust.BanEntry
	for _, text := range whom {
		e, err := crust.ParseBan(text)
		if err != nil {
			panic(err)
		}
		entries = append(entries, e)
	}
	began := time.Now()
	if err := s.Ban(entries, time.Hour); err != nil {
		panic(err)
	}
	return time.Since(began)
}
