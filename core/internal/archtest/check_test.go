package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// file is one Go file of the tree.
type file struct {
	path    string
	dir     string
	test    bool
	library bool // part of what others link: core without test rooms, and capi, less unshipped files
	text    []byte
	syntax  *ast.File
	imports []string
}

// tree is all Go code under a root.
type tree struct {
	table *table
	set   *token.FileSet
	files []*file
	found []string // violations
}

// skipped are directories whose code is not ours to judge: data, products.
var skipped = []string{".git", "testdata", "build", "target", "node_modules"}

// check reads every Go file under root, whatever its build tags, and returns
// what breaks the law, sorted.
func check(l *table, root fs.FS) ([]string, error) {
	t := &tree{table: l, set: token.NewFileSet()}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(skipped, d.Name()):
			return fs.SkipDir
		case d.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		return t.add(name, text)
	})
	if err != nil {
		return nil, err
	}
	for _, f := range t.files {
		t.checkForm(f)
		t.checkImports(f)
		if f.library && !f.test {
			t.checkCalls(f)
			t.checkPurity(f)
			t.checkDocs(f)
		}
		if f.test && strings.HasPrefix(f.dir, "core") {
			t.checkSleep(f)
		}
	}
	t.checkPackages()
	t.checkStarts()
	slices.Sort(t.found)
	return t.found, nil
}

func (t *tree) add(name string, text []byte) error {
	syntax, err := parser.ParseFile(t.set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	f := &file{path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), text: text, syntax: syntax}
	top, _, _ := strings.Cut(name, "/")
	f.library = (top == "core" || top == "capi") && !t.table.support[room(f.dir)] && !t.unshipped(syntax)
	for _, i := range syntax.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return err
		}
		f.imports = append(f.imports, p)
	}
	t.files = append(t.files, f)
	return nil
}

// unshipped reports whether a file is built only with a tag that no release has.
func (t *tree) unshipped(syntax *ast.File) bool {
	for _, group := range syntax.Comments {
		for _, line := range group.List {
			if group.Pos() > syntax.Package || !constraint.IsGoBuild(line.Text) {
				continue
			}
			expr, err := constraint.Parse(line.Text)
			return err == nil && expr.Eval(func(string) bool { return true }) &&
				!expr.Eval(func(tag string) bool { return !t.table.unshipped[tag] })
		}
	}
	return false
}

// report notes a violation at a node, or at a whole file.
func (t *tree) report(f *file, at ast.Node, format string, args ...any) {
	where := f.path
	if at != nil {
		where += ":" + strconv.Itoa(t.set.Position(at.Pos()).Line)
	}
	t.found = append(t.found, where+": "+fmt.Sprintf(format, args...))
}

// checkForm holds gofmt and the budgets, for all code.
func (t *tree) checkForm(f *file) {
	if formatted, err := format.Source(f.text); err != nil || !bytes.Equal(formatted, f.text) {
		t.report(f, nil, "not formatted by gofmt")
	}
	if lines := bytes.Count(f.text, []byte("\n")); lines > t.table.bound["file"] {
		t.report(f, nil, "%d lines, at most %d", lines, t.table.bound["file"])
	}
	for _, d := range f.syntax.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		lines := t.set.Position(fn.End()).Line - t.set.Position(fn.Pos()).Line + 1
		if lines > t.table.bound["function"] {
			t.report(f, fn, "%s has %d lines, at most %d", fn.Name.Name, lines, t.table.bound["function"])
		}
	}
	for _, group := range f.syntax.Comments {
		for _, word := range []string{"TODO", "FIXME", "XXX", "HACK"} {
			if strings.Contains(group.Text(), word) {
				t.report(f, group, "unfinished: %s", word)
			}
		}
	}
}

// checkImports holds the floors, and keeps test support out of what ships.
func (t *tree) checkImports(f *file) {
	if f.test {
		return
	}
	from := room(f.dir)
	for i, p := range f.imports {
		at := f.syntax.Imports[i]
		if p == "testing" || strings.HasPrefix(p, "testing/") {
			t.report(f, at, "imports %s outside a test", p)
			continue
		}
		dir, ours := strings.CutPrefix(p, module)
		if !ours {
			continue
		}
		to := room(dir)
		switch lower, known := t.table.floor[to]; {
		case t.table.support[to]:
			t.report(f, at, "imports %s, which is for tests", to)
		case from == "" || t.table.support[from]:
			// programs and test support stand above the house
		case !known:
			t.report(f, at, "imports %s, which is no room", dir)
		case lower >= t.table.floor[from] && !t.table.allows(from, "import", to):
			t.report(f, at, "imports %s of floor %d, itself on floor %d", to, lower, t.table.floor[from])
		}
	}
}

// endings are calls that end the process or unwind it.
var endings = []string{"panic", "os.Exit", "syscall.Exit", "log.Fatal", "log.Fatalf", "log.Fatalln", "log.Panic", "log.Panicf", "log.Panicln"}

// checkCalls keeps calls that take the host program down out of the library.
func (t *tree) checkCalls(f *file) {
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && slices.Contains(endings, callee(call)) {
			t.report(f, call, "calls %s", callee(call))
		}
		return true
	})
}

// callee names what is called: "f" or "x.f", "" for anything longer.
func callee(call *ast.CallExpr) string {
	switch fn := call.Fun.(type) {
	case *ast.Ident:
		return fn.Name
	case *ast.SelectorExpr:
		if x, ok := fn.X.(*ast.Ident); ok {
			return x.Name + "." + fn.Sel.Name
		}
	}
	return ""
}

// Functions of package time that read the clock or wait for it.
var clockwork = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// outside reports whether a package reaches beyond the process's own memory.
func outside(p string) bool {
	return p == "net" || p == "os" || p == "syscall" || p == "log" || p == "path/filepath" || p == "io/fs" ||
		strings.HasPrefix(p, "os/") || strings.HasPrefix(p, "log/") || strings.HasPrefix(p, "net/") && p != "net/netip" ||
		strings.HasPrefix(p, "golang.org/x/net") || p == "golang.org/x/sys/unix" || p == "golang.org/x/sys/windows"
}

// checkPurity holds what pure floors may not do.
func (t *tree) checkPurity(f *file) {
	r := room(f.dir)
	floor, known := t.table.floor[r]
	if !known || !t.table.pure[floor] {
		return
	}
	for i, p := range f.imports {
		if outside(p) && !t.table.allows(r, "use", p) {
			t.report(f, f.syntax.Imports[i], "%s only computes, but imports %s", r, p)
		}
	}
	if t.table.allows(f.path, "clock", "") {
		return
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clockwork, s.Sel.Name) {
				t.report(f, s, "%s only computes, but uses time.%s", r, s.Sel.Name)
			}
		}
		return true
	})
}

// checkDocs wants a comment on every exported name. Constants of one documented
// type may share that type's comment.
func (t *tree) checkDocs(f *file) {
	for _, d := range f.syntax.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Doc == nil && d.Name.IsExported() && ast.IsExported(receiver(d)) {
				t.report(f, d, "%s has no comment", d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				t.checkSpec(f, d, spec)
			}
		}
	}
}

func (t *tree) checkSpec(f *file, d *ast.GenDecl, spec ast.Spec) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
			t.report(f, s, "%s has no comment", s.Name.Name)
		}
	case *ast.ValueSpec:
		enumeration := d.Tok == token.CONST && (s.Type != nil || s.Values == nil)
		for _, name := range s.Names {
			if name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil && !enumeration {
				t.report(f, s, "%s has no comment", name.Name)
			}
		}
	}
}

// receiver returns the name of a method's type; for a function its own name.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return d.Name.Name
	}
	expr := d.Recv.List[0].Type
	for {
		switch e := expr.(type) {
		case *ast.StarExpr:
			expr = e.X
		case *ast.IndexExpr:
			expr = e.X
		case *ast.IndexListExpr:
			expr = e.X
		case *ast.Ident:
			return e.Name
		default:
			return ""
		}
	}
}

// checkSleep keeps real waiting out of unit tests: time.Sleep is for bubbles.
func (t *tree) checkSleep(f *file) {
	if slices.Contains(f.imports, "testing/synctest") {
		return
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && callee(call) == "time.Sleep" {
			t.report(f, call, "sleeps in a test that has no synctest bubble")
		}
		return true
	})
}

// checkPackages holds what is true of a package as a whole.
func (t *tree) checkPackages() {
	byDir := map[string][]*file{}
	for _, f := range t.files {
		byDir[f.dir] = append(byDir[f.dir], f)
	}
	for dir, files := range byDir {
		documented := false
		imports := map[string]bool{}
		for _, f := range files {
			documented = documented || f.syntax.Doc.Text() != ""
			for _, p := range f.imports {
				if !f.test && strings.HasPrefix(p, module) {
					imports[p] = true
				}
			}
		}
		if !documented {
			t.found = append(t.found, dir+": no package comment")
		}
		r := room(dir)
		_, known := t.table.floor[r]
		if strings.HasPrefix(dir, "core") && !known && !t.table.support[r] {
			t.found = append(t.found, dir+": no room of the table")
		}
		if bound := t.table.bound["imports"]; known && r != "core" && len(imports) > bound {
			t.found = append(t.found, fmt.Sprintf("%s: imports %d project packages, at most %d", dir, len(imports), bound))
		}
	}
}

// checkStarts keeps the places where goroutines begin few, and owned: go
// statements, WaitGroup.Go and its like, and functions that timers and contexts run.
func (t *tree) checkStarts() {
	starts := 0
	for _, f := range t.files {
		if !f.library || f.test {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
			case *ast.CallExpr:
				s, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || s.Sel.Name != "Go" && s.Sel.Name != "AfterFunc" {
					return true
				}
			default:
				return true
			}
			starts++
			if !t.table.allows(f.path, "start", "") {
				t.report(f, n, "starts a goroutine, and the table names no owner")
			}
			return true
		})
	}
	if bound := t.table.bound["starts"]; starts > bound {
		t.found = append(t.found, fmt.Sprintf("goroutines start in %d places, at most %d", starts, bound))
	}
}
