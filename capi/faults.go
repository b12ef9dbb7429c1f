//go:build !crusttest

package main

// injectFault is where tests make the dispatcher panic; see testhooks.go.
func injectFault(*service) {}
