package translate

import (
	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/dns/namepb"
)

// HostIn is what a service's DNS records are made of.
type HostIn struct {
	Service *mesh.Service
	Members *Members // of a headless service; nil else, so that its workloads' comings and goings are no change
}

// Host makes what the DNS servers of the sidecars know of a service.
func Host(in HostIn) *namepb.Host {
	s := in.Service
	h := &namepb.Host{
		Name: s.Name.Name, Namespace: s.Namespace,
		Headless: s.Headless, PublishNotReady: s.PublishNotReady, ExternalName: s.ExternalName,
	}
	for _, ip := range s.VirtualIPs {
		h.VirtualIps = append(h.VirtualIps, ip.AsSlice())
	}
	for _, p := range s.Ports {
		h.Ports = append(h.Ports, &namepb.Port{Name: p.Name, Number: uint32(p.Port)})
	}
	if in.Members == nil {
		return h
	}
	for i := range in.Members.Members {
		m := &in.Members.Members[i]
		e := &namepb.Endpoint{Hostname: m.Hostname, Ready: m.Ready}
		for _, a := range m.Addresses {
			e.Addresses = append(e.Addresses, a.AsSlice())
		}
		for _, p := range s.Ports {
			if port, ok := m.port(p.Port); ok {
				e.Ports = append(e.Ports, &namepb.Port{Name: p.Name, Number: uint32(port.Number)})
			}
		}
		if len(e.Addresses) > 0 {
			h.Endpoints = append(h.Endpoints, e)
		}
	}
	return h
}
