module github.com/libcrust/libcrust

go 1.26.0

require github.com/jamesruan/sodium v1.0.14
