//go:build !crusttest

package main

// keyTest is no key.
const keyTest = topKey(0)
