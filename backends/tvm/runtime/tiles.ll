; The scheduler of tile graphs: runs the launches of a section without barriers between them. Part of the driver.
;
; A task is some consecutive tiles of a launch, or a join of others.  A thread that has run one counts it off at each of
; its children; the first child that is thereby complete is its next task (depth first: what the child reads is still in
; this core's cache), the others are published in a ticket array.  A thread without a task draws a ticket and waits for
; that entry to be published.  Each task is published at most once, so the array needs no lock and no compare-and-swap,
; and any number of threads, come when they may, finish it (Rammer's static placement would wait for those that do not).
;
; section: i64 words, as entry.SectionWord names them. Words that several threads write lie 128 bytes apart.
;   0 tasks  1 launches  2 gather  3 launch table  4 arguments  5 task records  6 starts  7 children  8 counts at first
;   9 counts  10 ready  11 number of roots  12 roots  13 sinks  14 trace, or null
;   16 tickets drawn  32 tickets published  48 sinks left (0: all is done)  64 code of the first failure  65 its launch
;   gather:  for each launch the slot of its kernel (-1: a copy), its number of arguments, their slots
;   task:    i32 launch (-1: a join), first tile, end, 0
;   trace:   for each task, i64 first and last nanosecond, thread

declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

define internal i32 @copy_tiles(ptr %args, ptr %scratch, i64 %begin, i64 %end) {   ; to, from, bytes
  %from.at = getelementptr i64, ptr %args, i64 1
  %bytes.at = getelementptr i64, ptr %args, i64 2
  %to = load ptr, ptr %args
  %from = load ptr, ptr %from.at
  %bytes = load i64, ptr %bytes.at
  call void @llvm.memmove.p0.p0.i64(ptr %to, ptr %from, i64 %bytes, i1 false)
  ret i32 0
}

define internal i64 @word(ptr %section, i64 %i) alwaysinline {
  %at = getelementptr i64, ptr %section, i64 %i
  %value = load i64, ptr %at
  ret i64 %value
}

define internal ptr @pointer(ptr %section, i64 %i) alwaysinline {
  %at = getelementptr i64, ptr %section, i64 %i
  %value = load ptr, ptr %at
  ret ptr %value
}

; Prepares a section for a run: arguments from the table's slots, all counts and tickets as at first.
define internal void @tiles_begin(ptr %table, ptr %section) {
entry:
  %n = call i64 @word(ptr %section, i64 0)
  %launches = call i64 @word(ptr %section, i64 1)
  %gather = call ptr @pointer(ptr %section, i64 2)
  %launch.table = call ptr @pointer(ptr %section, i64 3)
  %arguments = call ptr @pointer(ptr %section, i64 4)
  %initial = call ptr @pointer(ptr %section, i64 8)
  %counts = call ptr @pointer(ptr %section, i64 9)
  %ready = call ptr @pointer(ptr %section, i64 10)
  %roots.count = call i64 @word(ptr %section, i64 11)
  %roots = call ptr @pointer(ptr %section, i64 12)
  %sinks = call i64 @word(ptr %section, i64 13)
  %size = shl i64 %n, 2
  call void @llvm.memcpy.p0.p0.i64(ptr %counts, ptr %initial, i64 %size, i1 false)
  call void @llvm.memset.p0.i64(ptr %ready, i8 0, i64 %size, i1 false)
  %roots.size = shl i64 %roots.count, 2
  call void @llvm.memcpy.p0.p0.i64(ptr %ready, ptr %roots, i64 %roots.size, i1 false)
  %head = getelementptr i64, ptr %section, i64 16
  store i64 0, ptr %head
  %tail = getelementptr i64, ptr %section, i64 32
  store i64 %roots.count, ptr %tail
  %left = getelementptr i64, ptr %section, i64 48
  store i64 %sinks, ptr %left
  %code = getelementptr i64, ptr %section, i64 64
  store i64 0, ptr %code
  br label %launch
launch:
  %l = phi i64 [ 0, %entry ], [ %l.next, %next ]
  %from = phi ptr [ %gather, %entry ], [ %from.next, %next ]
  %to = phi ptr [ %arguments, %entry ], [ %to.next, %next ]
  %more = icmp slt i64 %l, %launches
  br i1 %more, label %kernel, label %done
kernel:
  %slot = load i64, ptr %from
  %is.copy = icmp slt i64 %slot, 0
  %safe = select i1 %is.copy, i64 0, i64 %slot
  %kernel.at = getelementptr i64, ptr %table, i64 %safe
  %kernel.value = load ptr, ptr %kernel.at
  %function = select i1 %is.copy, ptr @copy_tiles, ptr %kernel.value
  %twice = shl i64 %l, 1
  %entry.at = getelementptr i64, ptr %launch.table, i64 %twice
  store ptr %function, ptr %entry.at
  %entry.args = getelementptr i64, ptr %entry.at, i64 1
  store ptr %to, ptr %entry.args
  %count.at = getelementptr i64, ptr %from, i64 1
  %count = load i64, ptr %count.at
  %slots = getelementptr i64, ptr %from, i64 2
  br label %argument
argument:
  %a = phi i64 [ 0, %kernel ], [ %a.next, %copied ]
  %some = icmp slt i64 %a, %count
  br i1 %some, label %copied, label %next
copied:
  %slot.at = getelementptr i64, ptr %slots, i64 %a
  %source = load i64, ptr %slot.at
  %value.at = getelementptr i64, ptr %table, i64 %source
  %value = load i64, ptr %value.at
  %target = getelementptr i64, ptr %to, i64 %a
  store i64 %value, ptr %target
  %a.next = add i64 %a, 1
  br label %argument
next:
  %from.next = getelementptr i64, ptr %slots, i64 %count
  %to.next = getelementptr i64, ptr %to, i64 %count
  %l.next = add i64 %l, 1
  br label %launch
done:
  ret void
}

; A thread's part in a section, as a kernel of the pool: tile %thread works until all tasks are done. Returns 0.
define internal i32 @tiles_work(ptr %section, ptr %scratch, i64 %thread, i64 %end) {
entry:
  %clock = alloca [2 x i64]
  %n = call i64 @word(ptr %section, i64 0)
  %launch.table = call ptr @pointer(ptr %section, i64 3)
  %tasks = call ptr @pointer(ptr %section, i64 5)
  %starts = call ptr @pointer(ptr %section, i64 6)
  %children = call ptr @pointer(ptr %section, i64 7)
  %counts = call ptr @pointer(ptr %section, i64 9)
  %ready = call ptr @pointer(ptr %section, i64 10)
  %trace = call ptr @pointer(ptr %section, i64 14)
  %traced = icmp ne ptr %trace, null
  %head = getelementptr i64, ptr %section, i64 16
  %tail = getelementptr i64, ptr %section, i64 32
  %left = getelementptr i64, ptr %section, i64 48
  br label %draw

draw:                                             ; a ticket
  %ticket = atomicrmw add ptr %head, i64 1 monotonic
  %beyond = icmp sge i64 %ticket, %n
  br i1 %beyond, label %leave, label %claim
claim:
  %place = getelementptr i32, ptr %ready, i64 %ticket
  br label %wait
wait:
  %spins = phi i64 [ 0, %claim ], [ %spins.next, %again ]
  %given = load atomic i32, ptr %place acquire, align 4
  %published = icmp ne i32 %given, 0
  br i1 %published, label %got, label %idle
idle:
  %still = load atomic i64, ptr %left acquire, align 8
  %finished = icmp sle i64 %still, 0
  br i1 %finished, label %leave, label %hold
hold:
  call void @pause()
  %spins.next = add i64 %spins, 1
  %often = and i64 %spins.next, 255
  %long = icmp eq i64 %often, 0
  br i1 %long, label %yield, label %again
yield:                                            ; whoever works may wait for this core
  %yielded = call i32 @sched_yield()
  br label %again
again:
  br label %wait

got:
  %first = sub i32 %given, 1
  br label %run
run:
  %task = phi i32 [ %first, %got ], [ %next, %counted ]
  %task.index = sext i32 %task to i64
  %record = shl i64 %task.index, 2
  %task.at = getelementptr i32, ptr %tasks, i64 %record
  %launch = load i32, ptr %task.at
  %join = icmp slt i32 %launch, 0
  br i1 %join, label %ran, label %look
look:                                             ; another thread may have failed
  %open = load atomic i64, ptr %left monotonic, align 8
  %closed = icmp sle i64 %open, 0
  br i1 %closed, label %leave, label %start
start:
  br i1 %traced, label %before, label %call
before:
  %began = call i64 @now(ptr %clock)
  br label %call
call:
  %start.ns = phi i64 [ 0, %start ], [ %began, %before ]
  %launch.index = sext i32 %launch to i64
  %launch.twice = shl i64 %launch.index, 1
  %launch.at = getelementptr i64, ptr %launch.table, i64 %launch.twice
  %args.at = getelementptr i64, ptr %launch.at, i64 1
  %begin.at = getelementptr i32, ptr %task.at, i64 1
  %end.at = getelementptr i32, ptr %task.at, i64 2
  %kernel = load ptr, ptr %launch.at
  %args = load ptr, ptr %args.at
  %begin.tile = load i32, ptr %begin.at
  %end.tile = load i32, ptr %end.at
  %from.tile = sext i32 %begin.tile to i64
  %to.tile = sext i32 %end.tile to i64
  %code = call i32 %kernel(ptr %args, ptr %scratch, i64 %from.tile, i64 %to.tile)
  %failed = icmp ne i32 %code, 0
  br i1 %failed, label %fail, label %succeeded
succeeded:
  br i1 %traced, label %note, label %ran
note:
  %ended = call i64 @now(ptr %clock)
  %triple = mul i64 %task.index, 3
  %note.at = getelementptr i64, ptr %trace, i64 %triple
  %note.end = getelementptr i64, ptr %note.at, i64 1
  %note.thread = getelementptr i64, ptr %note.at, i64 2
  store i64 %start.ns, ptr %note.at
  store i64 %ended, ptr %note.end
  store i64 %thread, ptr %note.thread
  br label %ran

ran:                                              ; count the task off at its children
  %start.at = getelementptr i32, ptr %starts, i64 %task.index
  %stop.at = getelementptr i32, ptr %start.at, i64 1
  %child.first = load i32, ptr %start.at
  %child.stop = load i32, ptr %stop.at
  %sink = icmp eq i32 %child.first, %child.stop
  br i1 %sink, label %last, label %child
last:
  %before.last = atomicrmw sub ptr %left, i64 1 acq_rel
  br label %draw
child:
  %c = phi i32 [ %child.first, %ran ], [ %c.next, %done ]
  %kept = phi i32 [ -1, %ran ], [ %kept.next, %done ]
  %c.index = sext i32 %c to i64
  %child.at = getelementptr i32, ptr %children, i64 %c.index
  %who = load i32, ptr %child.at
  %who.index = sext i32 %who to i64
  %count.at = getelementptr i32, ptr %counts, i64 %who.index
  %count = atomicrmw sub ptr %count.at, i32 1 acq_rel
  %complete = icmp eq i32 %count, 1
  br i1 %complete, label %take, label %done
take:
  %none = icmp slt i32 %kept, 0
  br i1 %none, label %done, label %publish
publish:
  %slot = atomicrmw add ptr %tail, i64 1 monotonic
  %slot.at = getelementptr i32, ptr %ready, i64 %slot
  %who.plus = add i32 %who, 1
  store atomic i32 %who.plus, ptr %slot.at release, align 4
  br label %done
done:
  %kept.next = phi i32 [ %kept, %child ], [ %who, %take ], [ %kept, %publish ]
  %c.next = add i32 %c, 1
  %all = icmp eq i32 %c.next, %child.stop
  br i1 %all, label %children.done, label %child
children.done:
  %next = add i32 %kept.next, 0
  %nothing = icmp slt i32 %next, 0
  br i1 %nothing, label %draw, label %counted
counted:
  br label %run

fail:                                             ; the first failure is told; all others stop
  %code.at = getelementptr i64, ptr %section, i64 64
  %code.launch = getelementptr i64, ptr %section, i64 65
  %code.wide = sext i32 %code to i64
  %exchanged = cmpxchg ptr %code.at, i64 0, i64 %code.wide acq_rel monotonic
  %mine = extractvalue { i64, i1 } %exchanged, 1
  br i1 %mine, label %tell, label %stop
tell:
  %launch.wide = sext i32 %launch to i64
  store i64 %launch.wide, ptr %code.launch
  br label %stop
stop:
  store atomic i64 0, ptr %left release, align 8
  br label %leave
leave:
  ret i32 0
}
