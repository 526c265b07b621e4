package kubernetes

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

func TestEndpointConditions(t *testing.T) {
	for _, tc := range []struct {
		name                        string
		ready, serving, terminating *bool
		wantReady, wantServing      bool
	}{
		{"nothing said", nil, nil, nil, true, true},
		{"ready", ptr(true), nil, nil, true, true},
		{"not ready", ptr(false), nil, nil, false, false},
		{"ending", ptr(false), ptr(true), ptr(true), false, true},
		{"ending and not serving", ptr(false), ptr(false), ptr(true), false, false},
		{"ending and published all the same", ptr(true), ptr(true), ptr(true), false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, _ := endpoint("shop", &discoveryv1.Endpoint{Conditions: discoveryv1.EndpointConditions{Ready: tc.ready, Serving: tc.serving, Terminating: tc.terminating}})
			if e.Ready != tc.wantReady || e.Serving != tc.wantServing {
				t.Errorf("ready %v, serving %v; want %v, %v", e.Ready, e.Serving, tc.wantReady, tc.wantServing)
			}
		})
	}
}

func TestEndpointTarget(t *testing.T) {
	for _, tc := range []struct {
		name      string
		ref       *corev1.ObjectReference
		want, uid string
	}{
		{"none", nil, "", ""},
		{"a pod", &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "api-0", UID: "u"}, "api-0", "u"},
		{"a pod without namespace", &corev1.ObjectReference{Kind: "Pod", Name: "api-0"}, "api-0", ""},
		{"a pod of another namespace", &corev1.ObjectReference{Kind: "Pod", Namespace: "bank", Name: "vault-0"}, "", ""},
		{"a node", &corev1.ObjectReference{Kind: "Node", Name: "n"}, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if e, uid := endpoint("shop", &discoveryv1.Endpoint{TargetRef: tc.ref}); e.Workload != tc.want || uid != tc.uid {
				t.Errorf("workload %q with UID %q, want %q with %q", e.Workload, uid, tc.want, tc.uid)
			}
		})
	}
}

func TestEndpointSlice(t *testing.T) {
	s := &discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: ptr("a"), Port: ptr(int32(1))}, {Port: ptr(int32(2)), Protocol: ptr(corev1.ProtocolTCP)},
			{Name: ptr("all ports")}, {Name: ptr("udp"), Port: ptr(int32(3)), Protocol: ptr(corev1.ProtocolUDP)}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"nonsense"}}, {Addresses: []string{"10.0.0.1"}}, {}},
	}
	s.Namespace, s.Name, s.Generation = "shop", "api-x", 7
	if got := endpointSlice(s); got != nil {
		t.Errorf("a slice of no service is %+v", got)
	}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: "api"}
	want := &mesh.EndpointSlice{
		Meta:    mesh.Meta{Ref: mesh.Ref{Kind: mesh.KindEndpointSlice, Name: mesh.Name{Namespace: "shop", Name: "api-x"}}, Generation: 7},
		Service: "api", Ports: []mesh.EndpointPort{{Name: "a", Number: 1}, {Number: 2}},
		Endpoints: []mesh.Endpoint{{Addresses: addrs("10.0.0.1"), Ready: true, Serving: true}},
	}
	got := endpointSlice(s)
	if d := cmp.Diff(want, got.EndpointSlice, compareAddrs); d != "" {
		t.Errorf("want -, got +:\n%s", d)
	}
	if len(got.uids) != 1 {
		t.Errorf("UIDs are %q, want one for each endpoint", got.uids)
	}
	if s.AddressType = discoveryv1.AddressTypeFQDN; endpointSlice(s) != nil {
		t.Error("a slice of names is in the mesh")
	}
}
