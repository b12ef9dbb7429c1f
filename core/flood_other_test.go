//go:build !unix

package crust_test

func limitFiles(string) {}
