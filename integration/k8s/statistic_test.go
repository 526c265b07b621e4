//go:build k8s

package k8s

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// statistic is one of Envoy's in a pod: the sum of the lines of a name and a label, as a
// Prometheus would read them.
type statistic struct{ namespace, pod, name, label string }

// read gives its value, 0 if there is none yet.
func (s statistic) read(t *testing.T) (sum float64) {
	t.Helper()
	ip := kubectl(t, "-n", s.namespace, "get", "pod", s.pod, "-o", "jsonpath={.status.podIP}")
	return scrape(t, net.JoinHostPort(ip, "15020"), s.name, s.label)
}

// controlPlaneSum is a metric of the control plane, summed over its replicas.
func controlPlaneSum(t *testing.T, name string) (sum float64) {
	t.Helper()
	for _, ip := range strings.Fields(kubectl(t, "-n", "heddle-system", "get", "pods", "-l", "app.kubernetes.io/name=heddle-controlplane",
		"--field-selector=status.phase=Running", "-o", "jsonpath={.items[*].status.podIP}")) {
		sum += scrape(t, net.JoinHostPort(ip, "15014"), name, "")
	}
	return sum
}

// scrape sums the lines of a name and a label that an address tells.
func scrape(t *testing.T, address, name, label string) (sum float64) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return c.Dial(ctx, network, address)
		},
	}}
	resp, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, name+"{") && !strings.HasPrefix(line, name+" ") || !strings.Contains(line, label) {
			continue
		}
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			t.Fatalf("statistic %q: %v", line, err)
		}
		sum += v
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return sum
}
