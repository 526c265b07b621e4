package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
)

// balance gives Services of type LoadBalancer their addresses, until the process ends.
// Nothing listens on them: kube-proxy on every node knows what to do with them.
func (j job) balance() error {
	config, err := clientcmd.BuildConfigFromFlags("", j.pki("admin.kubeconfig"))
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	services := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "services"})
	next := netip.MustParsePrefix(balancerCIDR).Addr().Next()
	for ; ; time.Sleep(500 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		list, err := services.List(ctx, metav1.ListOptions{})
		if err == nil {
			for i := range list.Items {
				s := &list.Items[i]
				kind, _, _ := unstructured.NestedString(s.Object, "spec", "type")
				has, _, _ := unstructured.NestedSlice(s.Object, "status", "loadBalancer", "ingress")
				if kind != "LoadBalancer" || len(has) > 0 {
					continue
				}
				patch, _ := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{
					"ingress": []any{map[string]any{"ip": next.String(), "ipMode": "VIP"}},
				}}})
				if _, err = services.Namespace(s.GetNamespace()).Patch(ctx, s.GetName(), types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err == nil {
					next = next.Next()
				}
			}
		}
		cancel()
		if err != nil {
			fmt.Fprintln(os.Stderr, "load balancer:", err)
		}
	}
}
