package broadcast

import "testing"

func TestChangeWakesAllWaiters(t *testing.T) {
	var s Signal
	state := 0
	change := func() { state++ }
	s.Change(change) // nobody waits
	a, b := s.C(), s.C()
	s.Change(change)
	<-a
	<-b
	select {
	case <-s.C():
		t.Error("the next channel is closed before the next Change")
	default:
	}
	if state != 2 {
		t.Errorf("state %d after 2 changes", state)
	}
}
