-- end: what stands after the lines of each migration, in the same script: done and recorded, or neither.
call('HSET', schema, 'version', ARGV[2], 'readers', ARGV[3], 'by', ARGV[4])
call('HSET', schema, 'at_ms', string.format('%.0f', now))
call('PEXPIRE', lock, ARGV[5])
return {OK, now}
