# Reads crust.h as the preprocessor leaves it and writes a body for each function
# that it declares, so that a compiler can say in debugging information what the
# functions take.
{ text = text " " $0 }
END {
    n = split(text, statement, ";")
    for (i = 1; i <= n; i++) {
        if (statement[i] !~ /[ *]crust_[a-z_0-9]+ ?\(/ || statement[i] ~ /typedef|[{}]/) continue
        print statement[i] " { __builtin_trap(); }"
    }
}
