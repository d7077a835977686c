// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"container/list"
	"time"
)

// queue holds names, each once, the oldest first.
type queue struct {
	order list.List // of queued
	at    map[string]*list.Element
}

type queued struct {
	name  string
	since time.Time
}

func newQueue() *queue { return &queue{at: map[string]*list.Element{}} }

func (q *queue) len() int { return len(q.at) }

func (q *queue) has(name string) bool { return q.at[name] != nil }

// add puts a name at the end, unless it is in.
func (q *queue) add(name string) {
	if q.at[name] == nil {
		q.at[name] = q.order.PushBack(queued{name, time.Now()})
	}
}

func (q *queue) remove(name string) {
	if e := q.at[name]; e != nil {
		q.order.Remove(e)
		delete(q.at, name)
	}
}

// oldest is the first name, of a queue that is not empty.
func (q *queue) oldest() queued { return q.order.Front().Value.(queued) }
