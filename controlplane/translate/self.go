package translate

import (
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Shares say how proxies of one identity are spread over zones, as the smallest whole
// numbers that stand to each other as their counts do: six proxies are spread as three are.
type Shares struct{ of []share }

type share struct {
	zone string
	part uint32
}

// NewShares counts zones, of which each stands for a proxy. A proxy whose zone is not known
// does not look at zones, and does not count.
func NewShares(zones []string) *Shares {
	counts := map[string]uint32{}
	var divisor uint32
	for _, zone := range zones {
		if zone != "" {
			counts[zone]++
		}
	}
	for _, n := range counts {
		divisor = gcd(n, divisor)
	}
	s := new(Shares)
	for _, zone := range slices.Sorted(maps.Keys(counts)) {
		s.of = append(s.of, share{zone, counts[zone] / divisor})
	}
	return s
}

func gcd(a, b uint32) uint32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// SameShares reports whether two spreads are equal.
func SameShares(a, b *Shares) bool { return slices.Equal(a.of, b.of) }

// SelfIn is what the endpoints of SelfName are made of.
type SelfIn struct{ Shares *Shares }

// Self makes the endpoints of the cluster that stands for a proxy's like: for each zone one
// with the weight of its share. Nobody calls them, and they lead nowhere.
func Self(in SelfIn) *endpointv3.ClusterLoadAssignment {
	cla := &endpointv3.ClusterLoadAssignment{ClusterName: SelfName}
	for _, s := range in.Shares.of {
		nowhere := &corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
			AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: SelfName},
			EndpointId:           s.zone,
		}}}
		cla.Endpoints = append(cla.Endpoints, &endpointv3.LocalityLbEndpoints{
			Locality: &corev3.Locality{Zone: s.zone},
			LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier:      &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: nowhere}},
				LoadBalancingWeight: wrapperspb.UInt32(s.part),
			}},
		})
	}
	return cla
}
