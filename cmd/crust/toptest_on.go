//go:build crusttest

package main

// keyTest has top panic, to see what becomes of the terminal.
const keyTest = topKey(-1)
