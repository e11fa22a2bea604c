-- GETs as browsers send them, of which no two heads are alike: a cookie and a trace id change with each (wrk's script).
local number, half = 0, 0

function setup(thread)
   half = half + 1
   thread:set("half", half)
end

function request()
   number = number + 1
   return string.format(
      "GET %s HTTP/1.1\r\nHost: %s:%s\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) bench\r\n"
      .. "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\nAccept-Language: en-GB,en;q=0.5\r\n"
      .. "Cookie: session=%08x%08x; theme=dark\r\ntraceparent: 00-%016x%016x-%016x-01\r\n\r\n",
      wrk.path, wrk.host, wrk.port, half, number, half, number, number)
end
