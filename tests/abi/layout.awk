# Reads crust.h and writes the lines of layout.inc: STRUCT, FIELD and NUMBER for
# everything that the header fixes, so that nothing can be forgotten.
{
    kept = ""
    rest = $0
    while (rest != "") { # leave out comments, which may span lines
        if (comment) {
            at = index(rest, "*/")
            rest = at ? substr(rest, at + 2) : ""
            comment = !at
        } else {
            at = index(rest, "/*")
            kept = kept (at ? substr(rest, 1, at - 1) : rest)
            rest = at ? substr(rest, at + 2) : ""
            comment = at > 0
        }
    }
    $0 = kept
    gsub(/[ \t]+/, " ")
}
/^ ?CRUST_[A-Z_0-9]+ = / { sub(/^ /, ""); sub(/ =.*/, ""); print "    NUMBER(" $0 ");"; next }
/^ ?#define CRUST_[A-Z_0-9]+ [0-9]/ { print "    NUMBER(" $2 ");"; next }
/typedef struct crust_[a-z_]+ \{/ {
    match($0, /crust_[a-z_]+ \{/)
    name = substr($0, RSTART, RLENGTH - 2)
    print "    STRUCT(" name ");"
    sub(/.*\{/, "")
    open = 1
}
open {
    last = 0
    if ($0 ~ /\}/) { sub(/\}.*/, ""); last = 1 }
    n = split($0, declarations, ";")
    for (i = 1; i <= n; i++) {
        m = split(declarations[i], fields, ",")
        for (j = 1; j <= m; j++) {
            gsub(/\[[^]]*\]/, "", fields[j])
            if (match(fields[j], /[a-z_0-9]+ ?$/)) {
                field = substr(fields[j], RSTART, RLENGTH)
                sub(/ $/, "", field)
                print "    FIELD(" name ", " field ");"
            }
        }
    }
    if (last) open = 0
}
