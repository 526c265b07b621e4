// Package server is the control plane's Identity service: it attests a caller
// (identity/attest), has its key signed (identity/ca), and hands out join tokens.
//
// One Server is registered on two gRPC servers: on the Unix socket with
// attest.UnixCredentials, and on TCP with TCPOptions. Nothing secret enters an error.
package server
