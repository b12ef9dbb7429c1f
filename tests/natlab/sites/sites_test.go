package sites

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../../../"

// TestDocument: the table in docs/DOCTOR.md is what the recorded rows make.
func TestDocument(t *testing.T) {
	rows, err := Read(root + Recorded)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(root + Document)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Put(string(text), Table(rows))
	if err != nil {
		t.Fatal(err)
	}
	if want != string(text) {
		t.Errorf("%s is not what the rows say: go run ./tests/natlab/cmd/doctortable", Document)
	}
}

// TestRows: what is written is read, and each difference is one.
func TestRows(t *testing.T) {
	rows := []Row{
		{Site: "b", Kind: "home", Health: "limited", Code: 3, UDP: "u", TCP: "t", Expect: map[string]string{"reachable": "direct", "home": "punched", "symmetric": "relayed"}},
		{Site: "a", Kind: "open", Health: "healthy", Mapped: "pcp"},
	}
	name := filepath.Join(t.TempDir(), "rows")
	if err := Write(name, rows); err != nil {
		t.Fatal(err)
	}
	got, err := Read(name)
	if err != nil || len(got) != 2 || !got[0].Equal(rows[1]) || !got[1].Equal(rows[0]) || got[0].Equal(got[1]) {
		t.Errorf("got %+v: %v", got, err)
	}
	if table := Table(got); !strings.Contains(table, "\n| b | `home`, limited | 3 | u | t |  | punched |  |  | relayed |\n") {
		t.Errorf("got %s", table)
	}
	if _, err := Put("text", "table"); err == nil {
		t.Error("a document without a place")
	}
	if text, err := Put("x\n"+begin+"old\n"+end+"y\n", "new\n"); err != nil || text != "x\n"+begin+"\nnew\n\n"+end+"y\n" {
		t.Errorf("got %q: %v", text, err)
	}
	if err := os.WriteFile(name, []byte("{\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(name); err == nil {
		t.Error("half a row was read")
	}
}
