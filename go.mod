module github.com/libcrust/libcrust

go 1.26.0

require (
	github.com/flynn/noise v1.1.0
	github.com/jamesruan/sodium v1.0.14
	github.com/spf13/cobra v1.10.2
	golang.org/x/crypto v0.58.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/pflag v1.0.9 // indirect
)
