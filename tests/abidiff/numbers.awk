# Reads what layout.awk of tests/abi writes and makes an enum of each family of numbers,
# such as CRUST_ERR, one of the fields of each struct, with where they lie and how large
# they are, and a variable of each enum by which abidiff finds it. Two names of one
# value in an enum are the same for abidiff: families are small, and no two fields lie
# at one place.
function add(family, name, value) {
    if (!(family in values)) order[++families] = family
    values[family] = values[family] "    of_" family "_is_" name " = " value ",\n"
}
/NUMBER\(/ {
    gsub(/^.*\(|\).*$/, "")
    if ($0 ~ /^CRUST_VERSION_/) next # changes with every release
    n = split($0, word, "_")
    family = word[1] "_" word[2]
    if (word[2] !~ /^(ERR|OPT|EVENT)$/)
        for (i = 3; i < n + (word[2] == "MAX"); i++) family = family "_" word[i]
    add(family, $0, $0)
}
/FIELD\(/ {
    gsub(/^.*\(|\).*$/, "")
    split($0, part, ", ")
    add(part[1], part[2], "(int)(offsetof(" $0 ") << 12 | sizeof ((" part[1] " *)0)->" part[2] ")")
}
END {
    for (i = 1; i <= families; i++) {
        family = order[i]
        printf "enum numbers_of_%s {\n%s};\n", family, values[family]
        printf "extern const enum numbers_of_%s of_%s;\nconst enum numbers_of_%s of_%s;\n", family, family, family, family
    }
}
