module opsctl.test/peers/promql-corpus

go 1.26.8

require github.com/prometheus/prometheus v0.315.0
