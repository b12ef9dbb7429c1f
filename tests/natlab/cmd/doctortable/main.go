// Command doctortable writes the table of sites into docs/DOCTOR.md from the rows that
// are recorded in tests/natlab/testdata. A file of rows that it is given, as
// CRUST_DOCTOR_OUT names one to TestDoctor, replaces what is recorded:
//
//	CRUST_DOCTOR_OUT=/tmp/rows go test ./tests/natlab -run 'TestDoctor$'
//	go run ./tests/natlab/cmd/doctortable /tmp/rows
//
// It is run at the root of the repository.
package main

import (
	"fmt"
	"os"

	"github.com/libcrust/libcrust/tests/natlab/sites"
)

func main() {
	if len(os.Args) > 2 {
		fmt.Fprintln(os.Stderr, "usage: doctortable [FILE]")
		os.Exit(2)
	}
	if err := write(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "doctortable:", err)
		os.Exit(1)
	}
}

func write(files []string) error {
	for _, name := range files {
		rows, err := sites.Read(name)
		if err != nil {
			return err
		}
		if err := sites.Write(sites.Recorded, rows); err != nil {
			return err
		}
	}
	rows, err := sites.Read(sites.Recorded)
	if err != nil {
		return err
	}
	old, err := os.ReadFile(sites.Document)
	if err != nil {
		return err
	}
	text, err := sites.Put(string(old), sites.Table(rows))
	if err != nil {
		return err
	}
	return os.WriteFile(sites.Document, []byte(text), 0o644)
}
