# shellcheck shell=bash
# build.sh docs: reference documentation into build/docs. Sourced by build.sh.

# make_docs writes a page for each Go package, the header, the Rust crates, the
# Python package and the documents of docs/, and an index.
make_docs() {
    local out=$BUILD/docs
    rm -rf "$out"
    mkdir -p "$out/go"
    say "Go"
    local package name
    for package in core core/identity cmd/crust; do
        name=${package//\//-}
        go doc -all "./$package" >"$out/go/$name.txt"
        printf '    build/docs/go/%s.txt\n' "$name"
    done
    say "C"
    page "crust.h" <include/crust.h >"$out/crust.h.html"
    printf '    build/docs/crust.h.html\n'
    python3 .ci/cdocs.py include/crust.h capi/exports.txt "$out/c"
    page "crust.hpp" <include/crust.hpp >"$out/crust.hpp.html"
    printf '    build/docs/%s\n' c/index.html crust.hpp.html
    say "Rust"
    (cd bindings/rust && CRUST_LIB_DIR=$BUILD/lib RUSTDOCFLAGS='-D warnings' \
        cargo doc --workspace --all-features --no-deps --locked --quiet --target-dir "$BUILD/rustdoc")
    cp -r "$BUILD/rustdoc/doc" "$out/rust"
    printf '    build/docs/rust/crust/index.html\n'
    say "Python"
    PYTHONPATH=$ROOT/bindings/python/src CRUST_LIBRARY=$BUILD/lib/libcrust.so.1 PYTHONDONTWRITEBYTECODE=1 \
        "$VENV/bin/python" .ci/pydocs.py "$out/python"
    printf '    build/docs/python/crust.html\n'
    cp docs/*.md docs/*.svg README.md CHANGELOG.md "$out/"
    write_index >"$out/index.html"
    say "Ready: build/docs/index.html"
}

# page TITLE makes a page of the text on standard input.
page() {
    printf '<!doctype html><meta charset="utf-8"><title>%s</title><pre>\n' "$1"
    sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g'
    printf '</pre>\n'
}

write_index() {
    local file
    printf '<!doctype html><meta charset="utf-8"><title>libcrust</title><h1>libcrust</h1><ul>\n'
    printf '<li><a href="%s">%s</a>\n' go/core.txt "Go: package crust" go/core-identity.txt "Go: package identity" \
        go/cmd-crust.txt "The command crust" c/index.html "C: a page for each function" crust.h.html "C: crust.h" \
        crust.hpp.html "C++: crust.hpp" rust/crust/index.html "Rust: crate crust" \
        rust/crust_sys/index.html "Rust: crate crust-sys" python/crust.html "Python: package crust"
    for file in README.md CHANGELOG.md docs/*.md; do
        printf '<li><a href="%s">%s</a>\n' "$(basename "$file")" "$(basename "$file" .md)"
    done
    printf '</ul>\n'
}
