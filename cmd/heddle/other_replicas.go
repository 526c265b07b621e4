package main

import (
	"errors"
	"net"
	"strconv"

	"google.golang.org/grpc"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/serve"
)

// agentPort is the control plane's for agents and for other replicas.
const agentPort = 15010

// otherReplicas are the replicas of the control plane but us, as its own Service has them.
type otherReplicas struct {
	self    string // our pod
	service mesh.Name
	parts   serve.Parts
	open    map[string]*grpc.ClientConn // by address
}

// conns gives a connection to each that is ready.
func (o *otherReplicas) conns() ([]grpc.ClientConnInterface, error) {
	next := map[string]*grpc.ClientConn{}
	var out []grpc.ClientConnInterface
	for _, slice := range o.parts.Pipeline.Snapshot().SlicesOf(o.service) {
		for _, e := range slice.Endpoints {
			if e.Workload == o.self || !e.Ready || len(e.Addresses) == 0 || e.Addresses[0].Is6() {
				continue
			}
			address := net.JoinHostPort(e.Addresses[0].String(), strconv.Itoa(agentPort))
			conn, ok := o.open[address]
			if !ok {
				var err error
				if conn, err = o.parts.Dial(address); err != nil {
					return nil, err
				}
			}
			next[address] = conn
			out = append(out, conn)
		}
	}
	for address, conn := range o.open {
		if next[address] == nil {
			_ = conn.Close()
		}
	}
	o.open = next
	return out, nil
}

func (o *otherReplicas) close() error {
	var errs []error
	for _, conn := range o.open {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}
