// Package channel secures the gRPC connections between agents and the control plane:
// TLS configurations for both ends, and the interceptors that let nobody without an SVID
// call anything but what the server opens by name. It also has the private Unix sockets
// that processes of one machine meet at.
//
// TLS 1.3 only, no session resumption: a resumed session would skip the check of a
// certificate that has expired since.
package channel
