// Command nattable writes the table of pairs into docs/NAT.md from the runs that are
// recorded in tests/natlab/testdata. Runs that it is given replace those of the same
// rows there:
//
//	go run ./tests/natlab/cmd/nattable -virtual new.jsonl -namespaces other.jsonl
//
// It is run at the root of the repository.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/libcrust/libcrust/tests/natlab/pairs"
)

func main() {
	virtual := flag.String("virtual", "", "`file` of runs in virtual time, by CRUST_PAIRS_OUT")
	namespaces := flag.String("namespaces", "", "`file` of runs in namespaces, by CRUST_NATLAB_OUT")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := write(*virtual, *namespaces); err != nil {
		fmt.Fprintln(os.Stderr, "nattable:", err)
		os.Exit(1)
	}
}

func write(virtual, namespaces string) error {
	v, errV := merge(pairs.Virtual, virtual)
	n, errN := merge(pairs.Namespaces, namespaces)
	if err := errors.Join(errV, errN); err != nil {
		return err
	}
	old, err := os.ReadFile(pairs.Document)
	if err != nil {
		return err
	}
	text, err := pairs.Put(string(old), pairs.Table(v, n))
	if err != nil {
		return err
	}
	for name, runs := range map[string][]pairs.Run{"virtual time": v, "namespaces": n} {
		if blank := pairs.Blank(runs); len(blank) > 0 {
			fmt.Fprintf(os.Stderr, "nattable: there are no runs in %s of %v\n", name, blank)
		}
	}
	return os.WriteFile(pairs.Document, []byte(text), 0o644)
}

// merge puts newer runs into a file of older ones, and returns all.
func merge(file, newer string) ([]pairs.Run, error) {
	runs, err := pairs.Read(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if newer == "" {
		return runs, nil
	}
	more, err := pairs.Read(newer)
	if err != nil {
		return nil, err
	}
	runs = pairs.Merge(runs, more)
	return runs, pairs.Write(file, runs)
}
