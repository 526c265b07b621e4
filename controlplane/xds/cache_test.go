package xds

import (
	"fmt"
	"slices"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
)

// TestEncoding holds the bytes that are put together by hand to what the proto package
// makes of the same message.
func TestEncoding(t *testing.T) {
	r, err := NewResource(Key{Type: EndpointType, Name: "a"}, &endpointv3.ClusterLoadAssignment{ClusterName: "a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	big := testResource(t, fmt.Sprintf("eds/b=%0300d", 1))
	response := &Response{TypeURL: EndpointType, Nonce: "7", Version: "42", Resources: []*Resource{r, big}, Removed: []string{"x", "y"}}
	buffers, err := Codec().Marshal(response)
	if err != nil {
		t.Fatal(err)
	}
	if buffers.Len() != response.Size() {
		t.Errorf("encoded to %d bytes, Size says %d", buffers.Len(), response.Size())
	}
	got := new(discoveryv3.DeltaDiscoveryResponse)
	if err := proto.Unmarshal(buffers.Materialize(), got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(response.Message(), got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if len(r.Version) != 16 {
		t.Errorf("version %q", r.Version)
	}
}

func TestNewResourceWrongType(t *testing.T) {
	if _, err := NewResource(Key{Type: ClusterType, Name: "a"}, &endpointv3.ClusterLoadAssignment{}, nil); err == nil {
		t.Error("endpoints were taken for a cluster")
	}
}

func TestCacheUpdate(t *testing.T) {
	c := NewCache()
	changed := c.Changed()
	if rev := c.Update([]*Resource{testResource(t, "cds/a=1"), testResource(t, "cds/b=1")}, nil); rev != 1 {
		t.Fatalf("revision %d", rev)
	}
	<-changed
	renewed := testResource(t, "cds/a=1")
	renewed.Origins = []Origin{{Kind: "Service", Name: "a", Generation: 2}}
	if rev := c.Update([]*Resource{renewed}, []Key{testKey("cds/nosuch")}); rev != 1 {
		t.Errorf("revision %d after the same version", rev)
	}
	if got := c.Get(testKey("cds/a")).Origins; len(got) != 1 {
		t.Errorf("origins %v were not taken over", got)
	}
	if rev := c.Update([]*Resource{testResource(t, "cds/a=2")}, []Key{testKey("cds/b"), testKey("cds/a")}); rev != 2 {
		t.Errorf("revision %d", rev)
	}
	if c.Get(testKey("cds/b")) != nil || c.Get(testKey("cds/a")).Version != "2" || c.Len() != 1 {
		t.Error("set and removal in one batch")
	}
}

// TestCacheIsBounded churns names: what is remembered of removed ones must not grow.
func TestCacheIsBounded(t *testing.T) {
	c := NewCache()
	c.Update([]*Resource{testResource(t, "cds/keep=1"), testResource(t, "cds/gone=1")}, nil)
	c.Update(nil, []Key{testKey("cds/gone")})
	for i := range 5 * minTombstones {
		c.Update([]*Resource{testResource(t, "cds/toggled=1"), testResource(t, fmt.Sprintf("cds/n%d=1", i))}, nil)
		c.Update(nil, []Key{testKey("cds/toggled"), testKey(fmt.Sprintf("cds/n%d", i))})
	}
	if len(c.entries) > minTombstones+1 || len(c.tombstones) > 4*minTombstones || len(c.names[ClusterType]) != 1 {
		t.Errorf("%d entries, %d tombstones, %d names", len(c.entries), len(c.tombstones), len(c.names[ClusterType]))
	}
	if got := slices.Collect(c.All()); len(got) != 1 {
		t.Errorf("%d resources", len(got))
	}
}

// TestFarBehind compares everything when the removals it missed are forgotten.
func TestFarBehind(t *testing.T) {
	c := NewCache()
	c.Update([]*Resource{testResource(t, "cds/a=1"), testResource(t, "cds/gone=1")}, nil)
	s := NewStream(c, Proxy{}, Pace{})
	ask := func(nonce string) []string {
		t.Helper()
		if err := s.Request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ClusterType, ResponseNonce: nonce}, epoch); err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, r := range s.Next(epoch) {
			out = append(out, describe(r))
		}
		return out
	}
	if got := ask(""); !slices.Equal(got, []string{"< cds +a=1 +gone=1"}) {
		t.Fatal(got)
	}
	c.Update(nil, []Key{testKey("cds/gone")})
	for i := range 2 * minTombstones {
		k := fmt.Sprintf("cds/n%d", i)
		c.Update([]*Resource{testResource(t, k+"=1")}, nil)
		c.Update(nil, []Key{testKey(k)})
	}
	if c.floor < 2 {
		t.Fatalf("nothing was forgotten: floor %d", c.floor)
	}
	if got := ask("1"); !slices.Equal(got, []string{"< cds -gone"}) {
		t.Fatal(got)
	}
}

// TestLargeResponse splits what would be more than a client takes at once.
func TestLargeResponse(t *testing.T) {
	c := NewCache()
	var set []*Resource
	for i := range 5 {
		set = append(set, testResource(t, fmt.Sprintf("dns/n%d=%01000000d", i, i)))
	}
	c.Update(set, nil)
	s := NewStream(c, Proxy{}, Pace{})
	req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: shortTypes["dns"]}
	var sent []int
	for {
		if err := s.Request(req, epoch); err != nil {
			t.Fatal(err)
		}
		responses := s.Next(epoch)
		if len(responses) == 0 {
			break
		}
		if size := responses[0].Size(); size > 4<<20 {
			t.Errorf("response of %d bytes", size)
		}
		sent = append(sent, len(responses[0].Resources))
		req = &discoveryv3.DeltaDiscoveryRequest{TypeUrl: req.TypeUrl, ResponseNonce: responses[0].Nonce}
	}
	if !slices.Equal(sent, []int{1, 1, 1, 1, 1}) {
		t.Errorf("resources per response: %v", sent)
	}
}
