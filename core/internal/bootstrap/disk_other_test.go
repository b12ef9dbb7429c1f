//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package bootstrap

func childOnFullDisk(string) int     { return complain("only Linux has mount namespaces") }
func childOnReadOnlyDisk(string) int { return complain("only Linux has mount namespaces") }
