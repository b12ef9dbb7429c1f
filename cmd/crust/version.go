package main

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
	"golang.org/x/sys/cpu"

	crust "github.com/libcrust/libcrust/core"
)

// abiVersion is CRUST_ABI_VERSION of include/crust.h, which a test compares.
const abiVersion = 1

// facts is what `crust version` tells. The field names of the JSON form are
// stable.
type facts struct {
	Version    string   `json:"version"`
	ABI        int      `json:"abi"` // the number in libcrust.so.N
	SOName     string   `json:"soname"`
	Go         string   `json:"go"`
	OS         string   `json:"os"`
	Arch       string   `json:"arch"`
	Transports []string `json:"transports"`
	Handshake  string   `json:"handshake"`
	Ciphers    []string `json:"ciphers"`      // of records, the preferred one first
	AES        bool     `json:"aes_hardware"` // AES-256-GCM is used when both peers have it
	MaxMessage int      `json:"max_message_bytes"`
}

func buildFacts() facts {
	aes := cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL || cpu.S390X.HasAESGCM
	ciphers := []string{"ChaCha20-Poly1305"}
	if aes {
		ciphers = []string{"AES-256-GCM", "ChaCha20-Poly1305"}
	}
	return facts{
		Version: crust.Version, ABI: abiVersion, SOName: fmt.Sprintf("libcrust.so.%d", abiVersion),
		Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		Transports: []string{crust.TCP.String()}, Handshake: "Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b",
		Ciphers: ciphers, AES: aes, MaxMessage: crust.MaxMessage,
	}
}

func newVersionCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Tell the version, the ABI and the ciphers of this build",
		Long: `version tells which libcrust this is, the number of the C ABI it belongs to, the Go
version it was built with, and which ciphers it would offer on this machine.

` + exitCodeHelp,
		Example: `  crust version
  crust version --json`,
		Args: arguments(0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := buildFacts()
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(f)
			}
			hardware := "no AES hardware here: ChaCha20-Poly1305"
			if f.AES {
				hardware = "AES-256-GCM where both peers have AES hardware, as here; else ChaCha20-Poly1305"
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "crust %s\nC ABI       %d (%s)\nGo          %s %s/%s\nhandshake   %s\nrecords     %s\ntransports  %s\n",
				f.Version, f.ABI, f.SOName, f.Go, f.OS, f.Arch, f.Handshake, hardware, f.Transports[0])
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}
