package bench

import (
	"os/exec"
	"testing"
)

// contender is one of two roads to a server. Its load also gives the processor time that
// the proxies on the road took, in microseconds, 0 where there are none.
type contender struct {
	name string
	load func() (loadResult, float64)
}

// compare runs loads on two roads in turns and reports the medians. Of a load with a rate
// that is what the second road adds, of one without, which fills the machine, what each
// road carries.
func compare(b *testing.B, paced bool, roads [2]contender) {
	b.Helper()
	figures := map[string][]float64{}
	add := func(unit string, value float64) { figures[unit] = append(figures[unit], value) }
	for range turns {
		var both [2]loadResult
		for i, road := range roads {
			r, cpu := road.load()
			both[i] = r
			add(road.name+"-p50-us", r.P50)
			if !paced {
				add(road.name+"-p99-us", r.P99)
				add(road.name+"-req/s", float64(r.Requests)/r.Seconds)
			}
			if cpu > 0 {
				add(road.name+"-proxy-us/req", cpu/float64(r.Requests))
				add(road.name+"-req/proxy-cpu-s", 1e6*float64(r.Requests)/cpu)
			}
		}
		if paced {
			add("added-p50-us", both[1].P50-both[0].P50)
			add("added-p90-us", both[1].P90-both[0].P90)
			add("added-p99-us", both[1].P99-both[0].P99)
		}
	}
	medians := map[string]float64{}
	for unit, values := range figures {
		medians[unit] = median(values)
	}
	report(b, medians)
}

// runLoad runs a load, and gives what processes used of the processor while it ran.
func runLoad(b *testing.B, cmd *exec.Cmd, pids []int) (result loadResult, cpu float64) {
	b.Helper()
	c := start(b, cmd)
	var warm bool
	c.Answer(&warm)
	before := cpuOf(b, pids...)
	c.Ask(warm, &result)
	used := cpuOf(b, pids...) - before
	if err := c.end(); err != nil {
		b.Fatalf("%s: %v", cmd.Args, err)
	}
	return result, micros(used)
}
